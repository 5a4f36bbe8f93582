"""Cheaper graphs: a cheap head that follows the model, and the model with fewer experts per row."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from contract.errors import ExportError
from contract.graph_names import MOST_EXPERTS
from contract.inputs import Inputs
from models.export import export
from models.export.form import RequestedForm
from models.export.stage_graphs import export_cheap_head, export_fewer_experts
from models.export_graph.routing import strongest
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lean_schema, lively_ranker, small_config

SCHEMA = lean_schema()
GATE = {"name": "top_k", "k": 2}


def answers(graph: Path, given: Inputs, most: int = 1) -> dict[str, NDArray[Any]]:
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    arrays = {**given.arrays(), MOST_EXPERTS: np.array([most])}
    values = session.run(names, {node.name: arrays[node.name] for node in session.get_inputs()})
    return dict(zip(names, values, strict=True))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, Path]:
    """A ranker of two experts per row, and its graphs: the model's, the cheap head's, and that with fewer experts."""
    folder = tmp_path_factory.mktemp("stages")
    ranker = lively_ranker(SCHEMA, small_config(gate=GATE, experts=4))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 60, 60), folder / "model.onnx", "sparse")
    sample = [inputs(SCHEMA, 400, 400, seed=seed) for seed in range(5)]
    export_cheap_head(ranker, report, sample, folder / "cheap.onnx")
    export_fewer_experts(ranker, report, 1, folder / "fewer.onnx")
    return ranker, folder


def test_a_cheap_head_follows_the_models_answers(graphs: tuple[Ranker, Path]) -> None:
    ranker, folder = graphs
    unseen = inputs(SCHEMA, 1, 300, seed=99)
    with torch.no_grad():
        whole = ranker.eval().predictions(ranker(TensorInputs.from_numpy(unseen)).logits_BT).numpy()
    cheap = answers(folder / "cheap.onnx", unseen)
    for place, task in enumerate(SCHEMA.tasks):
        assert cheap[task.name].shape == (300,)
        assert np.corrcoef(cheap[task.name], whole[:, place])[0, 1] > 0.6


def test_the_request_may_have_a_row_for_each_candidate(graphs: tuple[Ranker, Path]) -> None:
    assert len(answers(graphs[1] / "cheap.onnx", inputs(SCHEMA, 30, 30))[SCHEMA.tasks[0].name]) == 30


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_one_graph_takes_as_many_experts_as_a_run_asks_for(tmp_path: Path, form: RequestedForm) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 3}, experts=4))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 60, 60), tmp_path / "model.onnx", form)
    export_fewer_experts(ranker, report, 1, tmp_path / "fewer.onnx")
    given = inputs(SCHEMA, 1, 50, seed=4)
    whole = answers(tmp_path / "model.onnx", given)
    for most, kept in ((1, 1), (2, 2), (3, 3), (9, 3)):
        fewer = answers(tmp_path / "fewer.onnx", given, most)
        for name in (name for name in whole if name.startswith("expert_weights")):
            assert ((fewer[name] != 0).sum(axis=1) == kept).all()
            np.testing.assert_allclose(fewer[name].sum(axis=1), whole[name].sum(axis=1), rtol=1e-5)


def test_fewer_experts_are_the_strongest(graphs: tuple[Ranker, Path]) -> None:
    given = inputs(SCHEMA, 1, 50, seed=4)
    whole, fewer = (answers(graphs[1] / name, given) for name in ("model.onnx", "fewer.onnx"))
    gates = [name for name in whole if name.startswith("expert_weights")]
    assert gates
    for name in gates:
        np.testing.assert_array_equal(fewer[name].argmax(axis=1), whole[name].argmax(axis=1))


def test_as_many_experts_as_the_gate_has_change_nothing(graphs: tuple[Ranker, Path]) -> None:
    given = inputs(SCHEMA, 1, 50, seed=4)
    whole, fewer = (answers(graphs[1] / name, given, 2) for name in ("model.onnx", "fewer.onnx"))
    for task in SCHEMA.tasks:
        np.testing.assert_allclose(fewer[task.name], whole[task.name], atol=1e-6)


def test_experts_that_are_not_chosen_row_by_row_cannot_be_fewer(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(architecture={"name": "shared_bottom"}))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 60, 60), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="not chosen row by row"):
        export_fewer_experts(ranker, report, 1, tmp_path / "fewer.onnx")


def test_equal_weights_lose_nothing_of_their_sum() -> None:
    weights, selected = strongest(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([[True] * 3]), torch.tensor([1]))
    assert (weights.tolist(), selected.tolist()) == ([[0, 0, 1]], [[False, False, True]])
