"""Expert health over batches."""

import torch

from models.architectures import MMoEConfig, Plan, Wanted
from models.gates import Routing
from models.health import HealthMeter


def mmoe(tasks: int, experts: int, *, shared: bool = False) -> Plan:
    return MMoEConfig().plan(Wanted(tuple("abc"[:tasks]), experts, shared))


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
