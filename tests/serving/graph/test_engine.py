"""The engine: what it accepts, what it answers, what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.errors import ConfigError, IntegrityError, PredictionError, SchemaMismatchError
from serving.generate import ROOT
from serving.graph.engine import Engine
from serving.store.golden import GoldenCase, read
from tests.card import HAS_CARD, needs_card
from tests.tiny_bundle import make_files, make_inputs, make_schema, write_graph


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_files(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_predictions_are_one_float_a_candidate_for_each_task(folder: Path) -> None:
    predictions = Engine(folder).predict(make_inputs(1, [3, 1, 2]))
    assert set(predictions) == {"like", "rating"}
    for values in predictions.values():
        assert values.shape == (3,)
        assert values.dtype == np.float32


def test_a_candidate_is_answered_alike_in_any_company(folder: Path) -> None:
    engine = Engine(folder)
    alone = engine.predict(make_inputs(2, [5]))
    among = engine.predict(make_inputs(2, [7, 5, 9, 5]))
    for task in alone:
        assert among[task][1] == among[task][3] == alone[task][0]


def test_a_graph_of_another_schema_is_refused(folder: Path) -> None:
    write_graph(folder / "model.onnx", make_schema("share"))
    with pytest.raises(SchemaMismatchError, match="graph"):
        Engine(folder)


def test_a_graph_without_a_fingerprint_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(SchemaMismatchError, match=r"\(none\)"):
        Engine(folder)


def test_bytes_that_are_no_graph_are_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(IntegrityError, match="cannot load"):
        Engine(folder)


def test_a_graph_that_asks_for_other_inputs_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        node.input[:] = ["colour" if name == "request_dense" else name for name in node.input]
    model.graph.input[1].name = "colour"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(IntegrityError, match="colour"):
        Engine(folder)


def test_a_graph_without_a_task_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    del model.graph.output[1]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(IntegrityError, match="the schema's tasks are"):
        Engine(folder)


def test_an_answer_that_is_not_finite_is_an_error_and_no_prediction(folder: Path) -> None:
    write_graph(folder / "model.onnx", make_schema(), poison=True)
    engine = Engine(folder)
    engine.predict(make_inputs(1, [2, 3]))
    with pytest.raises(PredictionError, match="not finite"):
        engine.predict(make_inputs(1, [2, 1, 3]))


def test_golden_requests_notice_another_model(folder: Path) -> None:
    case = read(folder / "golden.npz")["first"]
    Engine(folder).check("first", case)
    write_graph(folder / "model.onnx", make_schema(), seed=1)
    with pytest.raises(PredictionError, match="golden request first: like is off by"):
        Engine(folder).check("first", case)


def test_golden_requests_need_answers_for_every_task(folder: Path) -> None:
    case = read(folder / "golden.npz")["first"]
    with pytest.raises(PredictionError, match="no answers for rating"):
        Engine(folder).check("first", GoldenCase(case.inputs, {"like": case.answers["like"]}))


def test_a_file_that_holds_no_golden_requests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(IntegrityError, match="golden requests"):
        read(tmp_path / "golden.npz")


WITHOUT_TORCH = """
import sys
from pathlib import Path
from serving.graph.engine import Engine
print(Engine(Path(sys.argv[1]), device="cuda").providers[0], "torch" in sys.modules)
"""


@pytest.mark.gpu
@needs_card
def test_a_process_that_never_imports_torch_runs_on_cuda(folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["CUDAExecutionProvider", "False"]


def test_a_required_gpu_that_is_not_used_is_an_error(folder: Path) -> None:
    if HAS_CARD:
        pytest.skip("this machine has a card")
    with pytest.raises(ConfigError, match="a GPU is required"):
        Engine(folder, device="cuda")
    with pytest.raises(ConfigError, match="a GPU is required"):
        Engine(folder, device="cuda")
    assert Engine(folder, device="auto").providers == ["CPUExecutionProvider"]
