"""The experts of a mixture, computed together.

Shape legend: B rows, D inputs, E experts, H hidden units of one expert, O outputs of one expert.
"""

from itertools import pairwise

from torch import Tensor, nn

from models.layers.aligned_linear import AlignedLinear
from models.layers.mlp import Block, BlockConfig, GroupedLinear


class Experts(nn.Module):
    """`count` networks with layers of the same `widths`.

    All experts read the same input, so their first layers are one wide Gemm.
    """

    def __init__(self, inputs: int, count: int, widths: tuple[int, ...], config: BlockConfig) -> None:
        """Build the experts over an input of width `inputs`."""
        super().__init__()
        self.count = count
        self.outputs = widths[-1]
        blocks = [Block(AlignedLinear(inputs, count * widths[0]), count * widths[0], config, count)]
        for before, width in pairwise(widths):
            residual = config.residual and before == width
            linear = GroupedLinear(before, width, count)
            blocks.append(Block(linear, count * width, config, count, residual=residual))
        self.blocks = nn.Sequential(*blocks)

    @property
    def typed_blocks(self) -> list[Block]:
        """The layers, the one that reads the input first."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, x_BD: Tensor) -> Tensor:
        """All experts' answers [B, E, O]."""
        answers: Tensor = self.blocks(x_BD)
        return answers.unflatten(1, (self.count, self.outputs))
