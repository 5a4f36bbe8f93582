"""Experts that hardly any row selects are left out, and the graph answers as the smaller model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.export import export
from models.export.prune import expert_use, prune
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import graph_path, inputs, lean_schema, lively_ranker, small_config

SCHEMA = lean_schema()
SHARED: dict[str, Any] = {"gate": {"name": "top_k", "k": 2}, "gate_scope": "shared"}


def with_idle_expert(**config: Any) -> Ranker:
    """A ranker whose first expert nobody selects."""
    ranker = lively_ranker(SCHEMA, small_config(**{**SHARED, **config}))
    for gate in ranker.network.typed_gates:
        if gate.projection is not None:
            with torch.no_grad():
                gate.projection.bias[0] = -1e4
    return ranker


def answers(ranker: Ranker) -> torch.Tensor:
    with torch.no_grad():
        return ranker(TensorInputs.from_numpy(inputs(SCHEMA, 100, 100))).logits_BT


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("architecture", [{"name": "mmoe", "shared_experts": 1}, {"name": "mmoe"}])
def test_an_expert_that_no_row_selects_goes_and_no_answer_changes(norm: str, architecture: dict[str, Any]) -> None:
    ranker = with_idle_expert(norm=norm, architecture=architecture)
    before = answers(ranker)
    pruned = prune(ranker, expert_use(ranker, [inputs(SCHEMA, 300, 300)]), 0.0)
    assert pruned.dropped == ((0,),)
    assert str(pruned).startswith(f"pruned 1 of {pruned.experts} experts with ")
    assert ranker.network.plan.experts == pruned.experts - 1
    torch.testing.assert_close(answers(ranker), before)


def test_rows_whose_experts_are_all_gone_take_the_most_used_one() -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}, gate_scope="shared"))
    use = expert_use(ranker, [inputs(SCHEMA, 300, 300)])
    pruned = prune(ranker, use, 1.0)
    assert len(pruned.dropped[0]) == 3
    routing = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 50, 50))).routings[0]
    torch.testing.assert_close(routing.weights_BE, torch.ones(50, 1))


def test_dense_gates_lose_nothing() -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    pruned = prune(ranker, expert_use(ranker, [inputs(SCHEMA, 100, 100)]), 0.5)
    assert pruned.weights == 0
    assert str(pruned).startswith("pruned none of 4 experts")


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_the_graph_answers_as_the_pruned_model(form: Any, tmp_path: Path) -> None:
    ranker = with_idle_expert(architecture={"name": "mmoe", "shared_experts": 1})
    prune(ranker, expert_use(ranker, [inputs(SCHEMA, 300, 300)]), 0.0)
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), form)
    assert report.worst_difference <= 1e-5
    assert report.idle == ()


@pytest.mark.slow
@pytest.mark.pairs
@pytest.mark.parametrize("architecture", [{"name": "ple", "levels": 2}, {"name": "cgc"}])
def test_experts_of_tasks_are_pruned_with_parity(architecture: dict[str, Any], tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}, architecture=architecture))
    pruned = prune(ranker, expert_use(ranker, [inputs(SCHEMA, 300, 300)]), 0.3)
    assert pruned.weights > 0
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), "sparse")
    assert report.worst_difference <= 1e-5
