"""Experts that answer alike become one, and the graph answers as the smaller model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.export import export
from models.export.merge import expert_distances, merge
from models.export.prune import expert_use, prune
from models.layers.mlp import GroupedLinear
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import graph_path, inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
ROWS = [inputs(SCHEMA, 200, 200, seed) for seed in range(2)]


def with_twins(**config: Any) -> Ranker:
    """A ranker whose experts 1 and 3 are the same but for 1 % of the first one's last layer."""
    ranker = lively_ranker(SCHEMA, small_config(**{"gate": {"name": "top_k", "k": 2}, "norm": "none"} | config))
    first, last = (block.linear for block in ranker.network.typed_levels[0].typed_banks[0].experts.typed_blocks)
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(last, GroupedLinear)
    with torch.no_grad():
        for each in (first.weight, first.bias):
            own = each.unflatten(0, (4, -1))
            own[3] = own[1]
        last.weight_EHD[3], last.bias_EH[3] = 1.01 * last.weight_EHD[1], 1.01 * last.bias_EH[1]
    return ranker


def answers(ranker: Ranker) -> torch.Tensor:
    with torch.no_grad():
        return ranker(TensorInputs.from_numpy(ROWS[0])).logits_BT


def merged(ranker: Ranker, distance: float = 0.05) -> Any:
    return merge(ranker, expert_distances(ranker, ROWS), expert_use(ranker, ROWS), distance)


def test_distances_are_those_of_the_answers_written_out() -> None:
    ranker = with_twins()
    (found_EE,) = expert_distances(ranker, ROWS)
    bank = ranker.network.typed_levels[0].typed_banks[0]
    with torch.no_grad():
        columns = [ranker.network.input_norm(ranker.columns(TensorInputs.from_numpy(rows).paired())) for rows in ROWS]
        answers_BEO = bank.experts(torch.cat(columns)).double()
    one, other = answers_BEO[:, 0], answers_BEO[:, 2]
    expected = ((one - other).square().sum() / (one.square().sum() + other.square().sum()) * 2).sqrt()
    assert found_EE[0, 2].item() == pytest.approx(expected.item(), rel=1e-6)
    assert found_EE[1, 3].item() == pytest.approx(0.01 / (0.5 * (1 + 1.01**2)) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("gate", [{"name": "top_k", "k": 2}, {"name": "softmax"}])
@pytest.mark.parametrize("scope", ["shared", "per_task"])
def test_twins_become_one_and_answers_hardly_move(gate: dict[str, Any], scope: str) -> None:
    ranker = with_twins(gate=gate, gate_scope=scope)
    before = answers(ranker)
    found = merged(ranker)
    assert [set(each.items()) in ({(1, 3)}, {(3, 1)}) for each in found.groups] == [True]
    assert str(found).startswith("merged 1 of 4 experts with ")
    assert ranker.network.plan.experts == 3
    moved = (answers(ranker) - before).abs().max().item()
    assert 0 < moved < 0.05 * before.abs().max().item()


def test_experts_that_differ_stay() -> None:
    ranker = lively_ranker(SCHEMA, small_config())
    before = answers(ranker)
    assert str(merged(ranker)).startswith("merged none of 4 experts")
    assert torch.equal(answers(ranker), before)


def test_experts_of_different_tasks_are_never_merged() -> None:
    ranker = lively_ranker(SCHEMA, small_config(architecture={"name": "cgc"}, experts=1))
    found = merged(ranker, 0.99)
    assert found.groups == ({},)


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_the_graph_answers_as_the_pruned_and_merged_model(form: Any, tmp_path: Path) -> None:
    ranker = with_twins(architecture={"name": "mmoe", "shared_experts": 2}, gate_scope="shared")
    with torch.no_grad():
        ranker.network.typed_gates[0].projection.bias[0] = -1e4  # type: ignore[union-attr]
    prune(ranker, expert_use(ranker, ROWS), 0.0)
    found = merged(ranker)
    assert sum(map(len, found.groups)) == 1
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), form)
    assert report.worst_difference <= 1e-5
