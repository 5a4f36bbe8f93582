"""Loss weighting: each rule's gradients and state."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses
from models.weighting import Shared, Weighting, WeightingConfig

TASKS = (TaskSpec(name="a", kind="binary"), TaskSpec(name="b", kind="regression"))
NAMES = ["fixed", "uncertainty", "gradnorm", "pcgrad"]


def rule(name: str, weights: tuple[float, float] = (1.0, 1.0), **options: Any) -> Weighting:
    adapter: TypeAdapter[Any] = TypeAdapter(WeightingConfig)
    built: Weighting = adapter.validate_python({"name": name, **options}).build(TASKS, torch.tensor(weights))
    return built


class World:
    """Two tasks pull one shared parameter to 1 and to -1, by way of a column of ones."""

    def __init__(self, pull: float = 1.0) -> None:
        self.table = torch.ones(4, 1, requires_grad=True)
        self.shared = torch.nn.Parameter(torch.zeros(1, 1))
        self.own = torch.nn.Parameter(torch.zeros(1))
        self.pull = pull

    def losses(self) -> tuple[Losses, Shared]:
        columns = self.table * 1.0
        answer = columns @ self.shared
        a, b = (answer - 1).square().mean(), self.pull * (answer + 1 + self.own).square().mean()
        return Losses(a + b, torch.stack([a, b]), {}), Shared(columns, [self.shared, self.own])


def gradient(parameter: Tensor) -> float:
    assert parameter.grad is not None
    return float(parameter.grad)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_the_tables_input_too(name: str) -> None:
    world = World()
    with torch.no_grad():
        world.shared.fill_(0.5)
    rule(name).backward(*world.losses())
    assert all(p.grad is not None for p in (world.table, world.shared, world.own))


def test_fixed_weights_are_those_of_the_configuration() -> None:
    world = World()
    rule("fixed", (1.0, 3.0)).backward(*world.losses())
    assert gradient(world.shared) == pytest.approx(-2 + 3 * 2)


def test_uncertainty_weighs_a_noisy_task_less() -> None:
    weighting = rule("uncertainty", learning_rate=0.1)
    for _ in range(200):
        weighting.backward(*World(pull=9.0).losses())
    log_variance = weighting.get_buffer("log_variance_T")
    # The minimum of c L exp(-s) + s / 2 is at exp(s) = 2 c L: L is 1 with c = 1, and 9 with c = 1/2.
    torch.testing.assert_close(log_variance, torch.log(torch.tensor([2.0, 9.0])), rtol=1e-3, atol=1e-3)


def test_gradnorm_brings_gradients_to_one_size() -> None:
    weighting = rule("gradnorm", alpha=0.0, learning_rate=0.01)
    for _ in range(300):
        world = World(pull=3.0)
        weighting.backward(*_at(world, 0.5))
    factors = weighting.get_buffer("factor_T")
    assert float(factors.sum()) == pytest.approx(2.0, abs=1e-5)
    # Norms at 0.5: |2 * (0.5 - 1)| = 1 and 3 * |2 * (0.5 + 1)| = 9.
    assert float(factors[0] / factors[1]) == pytest.approx(9.0, rel=0.2)


def _at(world: World, value: float) -> tuple[Losses, Shared]:
    with torch.no_grad():
        world.shared.fill_(value)
    return world.losses()


def test_pcgrad_removes_conflicts_and_leaves_agreement_alone() -> None:
    opposed = World()
    rule("pcgrad").backward(*opposed.losses())
    assert gradient(opposed.shared) == pytest.approx(0.0, abs=1e-6)
    assert gradient(opposed.own) == pytest.approx(2.0)
    agreed, plain = World(), World()
    rule("pcgrad").backward(*_at(agreed, 2.0))
    rule("fixed").backward(*_at(plain, 2.0))
    assert gradient(agreed.shared) == pytest.approx(gradient(plain.shared))
    torch.testing.assert_close(agreed.table.grad, plain.table.grad)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_goes_on_after_loading(name: str) -> None:
    first, second = rule(name), rule(name)
    first.backward(*_at(World(2.0), 0.3))
    second.load_state_dict(first.state_dict())
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value)
