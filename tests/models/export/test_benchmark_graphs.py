"""The graphs that `benchmarks.sparse_graph` times against each other answer alike, and it says so if they do not."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.interleaving import interleaved
from benchmarks.sparse_graph import Graph, measure
from benchmarks.sparse_models import joined_requests, tiled, write_form, write_packed, write_tiled
from models.export.activation_ranges import measure_ranges
from models.export.quantise import quantise_experts
from models.export.table_precision import store_tables
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All forms of one ranker with lists on both sides and a gate a task."""
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}))
    folder = tmp_path_factory.mktemp("graphs")
    found = {
        "tiled": write_tiled(ranker, folder / "tiled.onnx"),
        "sparse": write_form(ranker, folder / "sparse.onnx", "sparse"),
        "packed": write_packed(ranker, folder / "packed.onnx", "sparse"),
        "int8": folder / "int8.onnx",
        "tables": folder / "tables.onnx",
    }
    quantise_experts(found["sparse"], found["int8"], measure_ranges(found["sparse"], [inputs(SCHEMA, 1, 40).arrays()]))
    store_tables(found["sparse"], found["tables"], "int8")
    return found


@pytest.mark.slow
def test_one_request_is_answered_alike_by_all_forms(graphs: dict[str, Path]) -> None:
    one = inputs(SCHEMA, 1, 40)
    compared = [
        Graph(graphs["tiled"], tiled(one)),
        Graph(graphs["sparse"], one, 1e-5),
        Graph(graphs["packed"], one, 1e-5, np.zeros(40, np.int64)),
        Graph(graphs["int8"], one, 0.1),
        Graph(graphs["tables"], one, 0.1),
    ]
    assert compared[0].runner()().shape == (2, 40)
    times = measure(compared, 2)
    assert times.shape == (5, 2)
    assert (times > 0).all()


@pytest.mark.slow
def test_packed_requests_are_answered_as_in_turn(graphs: dict[str, Path]) -> None:
    requests = [inputs(SCHEMA, 1, 7, seed=seed) for seed in range(3)]
    alone = np.concatenate([Graph(graphs["sparse"], each).runner()() for each in requests], axis=1)
    together = Graph(graphs["packed"], joined_requests(requests), of_request=np.repeat(np.arange(3), 7))
    np.testing.assert_allclose(together.runner()(), alone, atol=1e-5)


@pytest.mark.slow
def test_a_graph_that_answers_otherwise_is_not_timed(graphs: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["sparse"])
    (bias,) = (each for each in model.graph.initializer if each.name == "towers.1.members.0.head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    one = inputs(SCHEMA, 1, 40)
    with pytest.raises(SystemExit, match=r"wrong\.onnx answers up to"):
        measure([Graph(graphs["tiled"], tiled(one)), Graph(tmp_path / "wrong.onnx", one)], 1)


def test_every_round_runs_each_graph_once() -> None:
    ran: list[str] = []

    def run(name: str) -> NDArray[np.float32]:
        ran.append(name)
        return np.zeros(1, np.float32)

    interleaved([partial(run, "a"), partial(run, "b")], 4)
    assert ran[-8:] == ["a", "b"] * 4
