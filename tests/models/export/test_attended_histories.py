"""Attended histories in the graph: it answers as the model does, whatever the histories hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from contract.inputs import Inputs
from contract.schema import IdSpec
from models.export import export
from models.export.batched_export import export_packed
from models.export.parity_sample import sanitised
from models.export.prepared_export import PreparedGraph, export_prepared
from models.export_graph.item_shares import PreparedItems
from models.ranker_tensors import TensorInputs
from tests.models.small import FEATURES, graph_path, inputs, lively_ranker, small_config, small_schema

MORE = (
    IdSpec(name="author", kind="id", side="item", rows=9),
    IdSpec(name="authors", kind="id_list", side="user", rows=9, table="author", max_length=10),
    IdSpec(name="ages", kind="id_list", side="user", rows=6, max_length=10),
)
SCHEMA = small_schema(features=(*FEATURES, *MORE))
LISTS = {"history", "authors", "ages"}
BESIDE = {"authors": "author", "ages": None}
CASES: dict[str, dict[str, Any]] = {
    "din": {"name": "din"},
    "din+beside": {"name": "din", "beside": BESIDE, "widths": (8, 4)},
    "din+softmax": {"name": "din", "normalise": True, "last": 4},
    "din+search": {"name": "din", "beside": BESIDE, "search": "authors"},
    "sim": {"name": "sim", "beside": BESIDE, "search": "authors"},
    "sim+itself": {"name": "sim", "search": "history", "heads": 1},
}


AW_MOE: dict[str, Any] = {"routing": "history", "sequences": {"history": CASES["din"]}, "bottom": (12,)}


def slow(case: str) -> Any:
    return pytest.param(case, marks=() if case == "sim" else (pytest.mark.slow, pytest.mark.pairs))


@pytest.mark.slow
@pytest.mark.parametrize("case", [slow(case) for case in CASES])
def test_the_graph_attends_as_the_model_does(case: str, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(sequences={"history": CASES[case]}))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path))
    assert report.rows_checked > 2000
    assert report.worst_difference <= 1e-5


@pytest.mark.slow
def test_gates_route_by_the_attended_history_in_the_graph_as_in_the_model(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**AW_MOE, gate={"name": "top_k", "k": 2}))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), "sparse")
    assert report.worst_difference <= 1e-5
    assert export_packed(ranker, report, inputs(SCHEMA, 40, 40), tmp_path / "packed.onnx").worst <= 1e-5


@pytest.mark.slow
def test_histories_of_none_one_and_two_hundred_events_and_of_unknown_ids(tmp_path: Path) -> None:
    """A user's request each, as it is served: one history, several candidates."""
    long = (spec.model_copy(update={"max_length": 200}) if spec.name in LISTS else spec for spec in SCHEMA.features)
    schema = small_schema(features=tuple(long))
    ranker = lively_ranker(schema, small_config(sequences={"history": CASES["din+search"]}, gate={"name": "softmax"}))
    report = export(ranker, schema, inputs(schema, 50, 50), graph_path(tmp_path))
    session = onnxruntime.InferenceSession(report.path)
    given = inputs(schema, 1, 7)
    rng = np.random.default_rng(0)
    for events in (0, 1, 200):
        ids = rng.integers(0, 6, 3 * events)
        for unknown in (0, -1, 2**62):
            values = np.where(rng.random(len(ids)) < 0.2, unknown, ids)
            request = replace(given.request, list_values=values, list_lengths=np.full((3, 1), events))
            asked = Inputs(request, given.candidate)
            arrays = asked.arrays()
            (like,) = session.run(["like"], {node.name: arrays[node.name] for node in session.get_inputs()})
            with torch.no_grad():
                output = ranker(TensorInputs.from_numpy(sanitised(asked, schema)))
            np.testing.assert_allclose(like, ranker.predictions(output.logits_BT)[:, 0].numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.pairs
def test_prepared_items_bring_the_ids_that_histories_are_compared_with(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(sequences={"history": CASES["sim"]}))
    sample = inputs(SCHEMA, 60, 60)
    report = export(ranker, SCHEMA, sample, graph_path(tmp_path))
    items = PreparedItems(frozenset({"item", "author", "plays"}), inputs(SCHEMA, 1, 30, seed=9).candidate)
    prepared = PreparedGraph(ranker, report, items)
    assert export_prepared(prepared, sample, tmp_path / "prepared.onnx").worst <= 1e-5
