"""A bundle with graphs for a card: which are run where, and how requests share runs there.

Without a card the CPU provider stands in for CUDA's: the graphs' operators are the same.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from contract.graph_names import (
    CUDA_MODEL_FILE,
    CUDA_PACKED_FILE,
    FEWER_FILE,
    GOLDEN_TOLERANCE,
    MODEL_FILE,
    PACKED_FILE,
    PREPARED_FILE,
    int8_of,
)
from features.online.request_encoder import RankRequest
from models.export.onnx_file import annotate
from serving.graph.engine import CPU, Engine
from serving.graph.graph_files import graph_files
from serving.graph.model_graphs import EngineOptions
from serving.graph.served_model import RankingModel
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema, write_graph

CARD = (MODEL_FILE, PACKED_FILE, PREPARED_FILE, CUDA_MODEL_FILE, CUDA_PACKED_FILE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, schema = tmp_path_factory.mktemp("store"), make_schema("like")
    files = make_files(folder / "work", packed=True)
    for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE):
        files[name] = folder / "work" / name
        write_graph(files[name], schema, seed=0, layers=0, packed=name == CUDA_PACKED_FILE)
    facts = {"schema_fingerprint": schema.fingerprint(), "tasks": ["like", "rating"], "git_revision": "abc"}
    return publish(folder / "store", "tiny", files, facts)


@pytest.fixture
def _cpu_is_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.graph.model_graphs.CUDA", CPU)


def test_a_card_runs_its_own_graphs_and_no_prepared_items() -> None:
    found = graph_files(CARD, "fp32", cuda=True)
    assert (found.model, found.packed, found.prepared) == (CUDA_MODEL_FILE, CUDA_PACKED_FILE, None)
    assert found.for_card
    half = graph_files({*CARD, "model.cuda.fp16.onnx", "packed.cuda.fp16.onnx"}, "fp16", cuda=True)
    assert (half.model, half.packed) == ("model.cuda.fp16.onnx", "packed.cuda.fp16.onnx")


def test_processors_and_older_bundles_run_what_they_always_did() -> None:
    found = graph_files(CARD, "fp32", cuda=False)
    assert (found.model, found.packed, found.prepared) == (MODEL_FILE, PACKED_FILE, PREPARED_FILE)
    old = graph_files({MODEL_FILE, PACKED_FILE}, "fp32", cuda=True)
    assert (old.model, old.packed, old.for_card) == (MODEL_FILE, PACKED_FILE, False)


def test_int8_graphs_are_for_processors_alone() -> None:
    names = (*CARD, FEWER_FILE, *(int8_of(name) for name in (MODEL_FILE, PACKED_FILE, PREPARED_FILE, FEWER_FILE)))
    own = graph_files(names, "fp32", cuda=False)
    assert (own.model, own.packed) == ("model.int8.onnx", "packed.int8.onnx")
    assert (own.prepared, own.fewer) == ("prepared.int8.onnx", "fewer.int8.onnx")
    assert graph_files(names, "fp32", cuda=True) == graph_files((*CARD, FEWER_FILE), "fp32", cuda=True)
    without = [name for name in names if name not in {CUDA_MODEL_FILE, CUDA_PACKED_FILE}]
    assert graph_files(without, "fp32", cuda=True).model == MODEL_FILE


def test_a_bundle_with_an_int8_graph_is_served_by_it_on_a_processor(bundle: Path, tmp_path: Path) -> None:
    schema = make_schema("like")
    files = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*") if path.is_file()}
    del files["manifest.json"]
    files[int8_of(MODEL_FILE)] = tmp_path / "other.onnx"
    write_graph(files[int8_of(MODEL_FILE)], schema, seed=3)
    # Golden answers are those of the float32 graph; this one says how far it lies from them.
    annotate(files[int8_of(MODEL_FILE)], {GOLDEN_TOLERANCE: "2"})
    facts = {"schema_fingerprint": schema.fingerprint(), "tasks": ["like", "rating"], "git_revision": "abc"}
    both = publish(tmp_path / "store", "tiny", files, facts)
    request = RankRequest(1, [100, 101], {"tab": "home"})
    for device in ("cpu", "auto"):
        model = RankingModel.open(both, EngineOptions(device=device))
        answers = model.rank(request).predictions["like"]
        other = Engine(both, file=int8_of(MODEL_FILE)).predict(model.encoder.encode(request).inputs)["like"]
        np.testing.assert_array_equal(answers, other)
        assert (
            np.abs(Engine(both, file=MODEL_FILE).predict(model.encoder.encode(request).inputs)["like"] - other).max()
            > 1e-3
        )


def test_without_a_card_auto_falls_back_to_the_graphs_for_processors(bundle: Path) -> None:
    model = RankingModel.open(bundle, EngineOptions(device="auto"))
    assert model.engine.providers == [CPU]
    assert model.graphs.joined is None


@pytest.mark.usefixtures("_cpu_is_a_card")
def test_requests_of_several_users_share_runs_on_a_card_and_are_answered_as_alone(bundle: Path) -> None:
    alone = RankingModel.open(bundle, EngineOptions(device="cpu"))
    model = RankingModel.open(bundle, EngineOptions(device="auto", queue_seconds=0.02))
    assert model.graphs.joined is not None
    requests = [RankRequest(user, [100, 101, 7777][: 1 + user % 3], {"tab": "home"}) for user in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(model.rank, requests))
    for request, answer in zip(requests, answers, strict=True):
        for task, values in alone.rank(request).predictions.items():
            np.testing.assert_allclose(answer.predictions[task], values, atol=1e-6)
