"""Which precisions of CUDA a bundle may be served at."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ConfigError, IntegrityError, PredictionError
from contract.graph_names import CUDA_MODEL_FILE, CUDA_PRECISIONS, GOLDEN_TOLERANCE, QUANTISED, int8_of, variant_of
from models.export.onnx_file import annotate, write_onnx
from models.export_graph.serving_graph import ServingGraph
from pipeline.doctor import examine_bundle
from pipeline.export.cuda_precision import judge_tf32
from serving.graph.cuda_tolerance import golden_tolerance
from serving.graph.engine import CPU, Engine, provider_options
from serving.store.golden import TOLERANCE, GoldenCase, require_golden
from tests.models.small import inputs, lively_ranker, small_config, small_schema
from tests.pipeline.tiny_features import write_features
from tests.tiny_bundle import make_files

SCHEMA = small_schema()
FACTS = {"tf32": {"passed": True, "tolerance": 3e-4, "reason": ""}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    metadata = {"schema_fingerprint": SCHEMA.fingerprint(), "form": "dense"}
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, folder / "model.onnx", metadata)
    SCHEMA.save(folder)
    features = write_features(folder / "features", SCHEMA)
    facts = judge_tf32(folder / "model.onnx", SCHEMA, features / "valid")
    annotate(folder / "model.onnx", {CUDA_PRECISIONS: json.dumps(facts)})
    return folder


def test_an_export_says_how_far_tf32_moves_its_answers(bundle: Path) -> None:
    facts = json.loads(Engine(bundle).properties[CUDA_PRECISIONS])
    assert facts["fp32"] == {"passed": True, "tolerance": TOLERANCE, "reason": ""}
    assert facts["tf32"]["passed"]
    assert TOLERANCE < facts["tf32"]["tolerance"] < 0.02
    assert golden_tolerance({CUDA_PRECISIONS: json.dumps(facts)}, "tf32", "it") == facts["tf32"]["tolerance"]


def test_a_golden_answer_that_tf32_moves_is_accepted_at_tf32_alone(bundle: Path) -> None:
    rows = inputs(SCHEMA, 1, 5)
    answers = Engine(bundle).predict(rows)
    moved = {task: values + np.float32(2e-4) for task, values in answers.items()}
    case = GoldenCase(rows, moved)
    require_golden("moved", case, answers, golden_tolerance({CUDA_PRECISIONS: json.dumps(FACTS)}, "tf32", "it"))
    with pytest.raises(Exception, match="is off by"):
        Engine(bundle).check("moved", case)


def test_an_int8_graph_may_round_a_value_to_the_next_step(bundle: Path, tmp_path: Path) -> None:
    rows = inputs(SCHEMA, 1, 5)
    answers = Engine(bundle).predict(rows)
    case = GoldenCase(rows, {task: values + np.float32(2e-3) for task, values in answers.items()})
    int8 = shutil.copytree(bundle, tmp_path / "int8")
    annotate(int8 / "model.onnx", {QUANTISED: "experts"})
    Engine(int8).check("one step away", case)
    with pytest.raises(PredictionError, match="is off by"):
        Engine(bundle).check("one step away", case)
    wrong = GoldenCase(rows, {task: values + np.float32(0.2) for task, values in answers.items()})
    with pytest.raises(PredictionError, match=r"allowed is 0\.05"):
        Engine(int8).check("wrong", wrong)


def test_a_graph_may_say_itself_how_far_its_golden_answers_lie() -> None:
    assert golden_tolerance({QUANTISED: "experts", GOLDEN_TOLERANCE: "0.004"}, "fp32", "it") == 0.004
    for wrong in ("much", "-1", "nan"):
        with pytest.raises(IntegrityError, match=r"golden_tolerance is wrong .*export the model again"):
            golden_tolerance({GOLDEN_TOLERANCE: wrong}, "fp32", "it")


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({}, "its export did not measure it"),
        (
            {CUDA_PRECISIONS: json.dumps({"tf32": {"passed": False, "reason": "like: auc .8 -> .7"}})},
            "like: auc .8 -> .7",
        ),
    ],
)
def test_a_precision_that_a_bundle_did_not_pass_at_is_refused(properties: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        golden_tolerance(properties, "tf32", "it")
    assert golden_tolerance(properties, "fp32", "it") == TOLERANCE


def test_cuda_multiplies_in_float32_unless_asked_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr("serving.graph.engine.ort.get_available_providers", lambda: both)
    assert provider_options("cuda", "fp32")[0] == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert provider_options("auto", "tf32")[0] == ("CUDAExecutionProvider", {"use_tf32": "1"})
    assert provider_options("cpu", "tf32") == [(CPU, {})]


def test_the_cpu_computes_in_float32_whatever_is_asked_of_cuda(bundle: Path) -> None:
    engine = Engine(bundle, device="cpu", precision="tf32")
    assert (engine.precision, engine.tolerance) == ("fp32", TOLERANCE)


def test_doctor_names_provider_precision_and_form(bundle: Path) -> None:
    found = examine_bundle(bundle, "cpu").found
    assert (
        "CPUExecutionProvider, fp32, dense form; on CUDA it may be served at fp32, tf32, with the same graph" in found
    )


def test_doctor_names_the_form_for_a_card(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    shutil.copy(folder / "model.onnx", folder / CUDA_MODEL_FILE)
    annotate(folder / CUDA_MODEL_FILE, {"form": "wide"})
    found = examine_bundle(folder, "cpu").found
    assert "CPUExecutionProvider, fp32, dense form; on CUDA it may be served at fp32, tf32 in the wide form" in found
    # Half precision may have another.
    half = folder / variant_of(CUDA_MODEL_FILE, "fp16")
    shutil.copy(folder / CUDA_MODEL_FILE, half)
    annotate(half, {"form": "moe"})
    passed = json.loads(Engine(bundle).properties[CUDA_PRECISIONS]) | {"fp16": FACTS["tf32"]}
    annotate(folder / CUDA_MODEL_FILE, {CUDA_PRECISIONS: json.dumps(passed)})
    assert examine_bundle(folder, "cpu").found.endswith("at fp32, tf32 in the wide form, fp16 in the moe form")


def test_doctor_names_the_int8_graph_of_a_processor_and_the_float32_graph_of_a_card(
    bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    shutil.copy(folder / "model.onnx", folder / int8_of("model.onnx"))
    annotate(folder / int8_of("model.onnx"), {QUANTISED: "experts"})
    found = examine_bundle(folder, "cpu").found
    assert "model.int8.onnx on CPUExecutionProvider, fp32 with int8 experts, dense form; " in found
    assert found.endswith("on CUDA it may be served at fp32, tf32, with model.onnx in float32")


def test_doctor_says_that_int8_experts_are_not_for_a_card(tmp_path: Path) -> None:
    make_files(tmp_path / "bundle")
    annotate(tmp_path / "bundle" / "model.onnx", {QUANTISED: "experts"})
    told = examine_bundle(tmp_path / "bundle", "cpu").found
    assert "CPUExecutionProvider, fp32 with int8 experts, " in told
    assert told.endswith("on CUDA its int8 experts have no kernels: export one without for a card")
