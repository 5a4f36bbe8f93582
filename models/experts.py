"""The experts of a mixture, computed together.

Shape legend: B rows, D inputs, E experts, H hidden units of one expert, O outputs of one expert.
"""

from itertools import pairwise

from torch import Tensor, nn

from models.config import ModelConfig
from models.mlp import Block, GroupedLinear


class Experts(nn.Module):
    """`config.experts` networks with the layers `config.expert_widths`.

    All experts read the same input, so their first layers are one wide Gemm.
    """

    def __init__(self, inputs: int, config: ModelConfig) -> None:
        """Build the experts over an input of width `inputs`."""
        super().__init__()
        self.count = config.experts
        self.outputs = config.expert_widths[-1]
        widths = config.expert_widths
        blocks = [Block(nn.Linear(inputs, self.count * widths[0]), self.count * widths[0], config, self.count)]
        for before, width in pairwise(widths):
            linear = GroupedLinear(before, width, self.count)
            blocks.append(Block(linear, self.count * width, config, self.count))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x_BD: Tensor) -> Tensor:
        """All experts' answers [B, E, O]."""
        answers: Tensor = self.blocks(x_BD)
        return answers.unflatten(1, (self.count, self.outputs))
