"""Wide layers over any number of columns: the same answers and gradients, by products whose rows are aligned."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers.aligned_linear import COLUMNS, AlignedLinear
from models.layers.mlp import BlockConfig, mlp

BARE = BlockConfig(activation="relu", norm="none", dropout=0.0, residual=False)


class Products(TorchDispatchMode):
    """Notes the shapes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it so
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}:
            self.shapes += [arg.shape for arg in args[-2:]]
        return func(*args, **(kwargs or {}))


def test_a_layer_that_reads_330_columns_is_trained_by_aligned_products() -> None:
    network = mlp(330, (256,), BARE)
    x = torch.randn(20, 330, requires_grad=True)
    with Products() as products:
        network(x).sum().backward()
    assert len(products.shapes) == 6
    assert all(size % COLUMNS == 0 or size == 20 for shape in products.shapes for size in shape)


@pytest.mark.parametrize(("columns", "outputs"), [(330, 256), (336, 256), (5, 3)])
def test_answers_and_gradients_are_those_of_the_layer(columns: int, outputs: int) -> None:
    linear, plain = AlignedLinear(columns, outputs), nn.Linear(columns, outputs)
    plain.load_state_dict(linear.state_dict())
    x, pull = torch.randn(20, columns, requires_grad=True), torch.randn(20, outputs)
    expected, answer = plain(x), linear(x)
    torch.testing.assert_close(answer, expected)
    ours, theirs = (
        torch.autograd.grad(of, (x, layer.weight, layer.bias), pull)
        for of, layer in ((answer, linear), (expected, plain))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(linear.eval()(x), expected)


def test_who_watches_the_layers_of_a_network_sees_the_padded_one() -> None:
    network, seen = mlp(7, (256,), BARE), []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    network(torch.randn(4, 7))
    assert seen[0] == "0.linear"
