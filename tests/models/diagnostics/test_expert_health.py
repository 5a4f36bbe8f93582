"""Expert health over batches, and what it says in words."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.architectures import ArchitecturePlan, MMoEConfig, PlanRequest
from models.diagnostics.diagnosis import dead_experts, diagnose
from models.diagnostics.expert_health import ExpertHealth, HealthMeter
from models.gates import Routing
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lively_ranker, small_config, small_schema

HEALTHY = ExpertHealth(
    weight=[[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]],
    share=[[1.0, 0.6, 0.4], [0.4, 1.0, 0.6]],
    selected=[2.0, 2.0],
    effective=[2.8, 2.8],
    union=0.9,
    zeros=[0.4, 0.5, 0.6],
    scale=[1.0, 1.2, 0.8],
    distance=[0.0, None],
    owners=[[0, 1], [0, 1], [0, 1]],
)


def mmoe(tasks: int, experts: int, *, shared: bool = False) -> ArchitecturePlan:
    return MMoEConfig().plan(PlanRequest(tuple("abc"[:tasks]), experts, shared))


def routing(weights: list[list[float]]) -> Routing:
    values = torch.tensor(weights)
    return Routing(values, values > 0, {})


def test_health_averages_over_rows_and_takes_the_union_over_tasks() -> None:
    meter = HealthMeter(mmoe(2, 4), tasks=2)
    meter.add((routing([[0.5, 0.5, 0, 0], [1, 0, 0, 0]]), routing([[0, 1, 0, 0], [0, 0, 1, 0]])), rows=2)
    health = meter.result()
    assert health.weight[0] == [0.75, 0.25, 0.0, 0.0]
    assert health.share[0] == [1.0, 0.5, 0.0, 0.0]
    assert health.selected == [1.5, 1.0]
    assert health.union == 0.5


def test_a_static_shared_gate_counts_for_every_row_and_task() -> None:
    meter = HealthMeter(mmoe(3, 2, shared=True), tasks=3)
    meter.add((routing([[0.25, 0.75]]),), rows=10)
    meter.add((routing([[0.75, 0.25]]),), rows=10)
    health = meter.result()
    assert health.weight == [[0.5, 0.5]] * 3
    assert health.union == 1.0


@pytest.mark.parametrize("joint", [False, True])
def test_a_watched_network_tells_of_its_experts_answers_and_selectors(
    monkeypatch: pytest.MonkeyPatch, *, joint: bool
) -> None:
    """Also where a level's gates are one product, as on a card."""
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"} if joint else ()))
    schema = small_schema()
    ranker = lively_ranker(schema, small_config(gate={"name": "dselect_k", "k": 2}, experts=4))
    meter = HealthMeter(ranker.network.plan, tasks=2)
    with meter.watching(ranker.network), torch.no_grad():
        meter.add(ranker(TensorInputs.from_numpy(inputs(schema, 50, 50))).routings, 50)
    health = meter.result()
    assert all(0.0 < zeros < 1.0 for zeros in health.zeros)
    assert all(scale > 0.0 for scale in health.scale)
    assert all(distance is not None and 0.0 < distance < 1.0 for distance in health.distance)
    assert health.owners == [[0, 1]] * 4
    assert all(1.0 <= effective <= 4.0 for effective in health.effective)


def test_the_effective_number_of_experts_is_that_of_equal_weights() -> None:
    meter = HealthMeter(mmoe(1, 4), tasks=1)
    meter.add((routing([[0.5, 0.5, 0, 0]]),), rows=1)
    assert math.isclose(meter.result().effective[0], 2.0, rel_tol=1e-6)


def test_nothing_is_said_of_healthy_experts() -> None:
    assert not diagnose(HEALTHY, ["like", "share"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"share": [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], "weight": [[0.5, 0.5, 0.0]] * 2},
            "dead: no task uses expert 3;",
        ),
        ({"zeros": [0.95, 0.99, 0.2]}, "collapse: more than 90% of the activations of experts 1-2 are zero;"),
        ({"scale": [1.0, 1.0, 90.0]}, "collapse: the outputs of expert 3 are of another size"),
        ({"weight": [[0.6, 0.4, 0.0], [0.01, 0.5, 0.49]], "owners": [[0, 1], [0, 1], [1]]}, "is like's"),
        ({"owners": [[0, 1], [0, 1], [0]], "weight": [[0.5, 0.45, 0.05], [0.5, 0.5, 0.0]]}, "underfitting: like gives"),
        ({"distance": [0.2, None]}, "not converged: the selectors of like's gate are 0.20 away from one-hot"),
    ],
)
def test_each_anomaly_is_named_with_what_to_try(changes: dict[str, Any], said: str) -> None:
    (warning,) = diagnose(replace(HEALTHY, **changes), ["like", "share"])
    assert said in warning
    assert "try" in warning


def test_an_expert_is_dead_if_no_task_selects_it() -> None:
    assert dead_experts(replace(HEALTHY, share=[[1.0, 0.0, 0.0], [1.0, 0.0, 0.5]])) == [1]
