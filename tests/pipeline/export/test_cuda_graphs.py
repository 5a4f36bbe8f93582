"""Graphs for a card beside a bundle's own: when they are written, and what is told of half precision."""

from pathlib import Path
from typing import get_args

import pytest

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, FORM, FORM_REASON, variant_of
from models.export import ExportReport, export
from models.export.onnx_file import operators
from models.ranker import Ranker
from pipeline.export.cuda_graphs import FILES, judge_cuda_graphs, write_cuda_graphs
from pipeline.export.post_export import ExportConfig
from serving.graph.cuda_tolerance import CudaPrecision
from serving.graph.engine import Engine
from serving.graph.graph_files import graph_files
from tests.models.small import inputs, lively_ranker, small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, ExportReport]:
    folder = tmp_path_factory.mktemp("export")
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}))
    return ranker, export(ranker, SCHEMA, inputs(SCHEMA, 64, 64), folder / "model.onnx")


@pytest.mark.slow
def test_half_precision_is_judged_by_the_validation_rows(exported: tuple[Ranker, ExportReport], tmp_path: Path) -> None:
    ranker, report = exported
    out, valid = report.path.parent, write_features(tmp_path / "features", SCHEMA) / "valid"
    config = ExportConfig(cuda="fp16", cuda_form="moe", tables="fp16")
    told = write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, config).facts
    halves = {variant_of(name, "fp16") for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE)}
    assert set(told["files"]) == {CUDA_MODEL_FILE, CUDA_PACKED_FILE} | halves
    assert all(fact == {"form": "moe", "reason": "asked for"} for fact in told["files"].values())
    assert {name for name in FILES if (out / name).is_file()} == set(told["files"])
    facts = judge_cuda_graphs(out, SCHEMA, valid)["fp16"]
    assert facts["passed"]
    assert 1e-4 < facts["tolerance"] < 0.02
    # What an earlier export wrote must not be published beside other weights.
    assert write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, ExportConfig(cuda="none")) == ({}, {})
    assert not any((out / name).is_file() for name in FILES)
    assert judge_cuda_graphs(out, SCHEMA, valid) == {}


@pytest.mark.slow
def test_weights_of_eight_bits_are_judged_too(exported: tuple[Ranker, ExportReport], tmp_path: Path) -> None:
    ranker, report = exported
    out, valid = report.path.parent, write_features(tmp_path / "features", SCHEMA) / "valid"
    told = write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, ExportConfig(cuda="int8")).facts
    # They take the operator's form, and float32 the one that is faster for it.
    for file, form in (("model.cuda.onnx", "wide"), ("model.cuda.int8.onnx", "moe")):
        why = "measured on" if form == "wide" else "com.microsoft.QMoE"
        assert (told["files"][file]["form"], why in told["files"][file]["reason"]) == (form, True)
        properties = Engine(out, SCHEMA, file=file).properties
        assert {"form": properties[FORM], "reason": properties[FORM_REASON]} == told["files"][file]
    assert told["files"] == {name: told["files"][name.replace("packed", "model")] for name in told["files"]}
    assert operators(out / "model.cuda.onnx").count("com.microsoft.MoE") == 0
    facts = judge_cuda_graphs(out, SCHEMA, valid)
    assert set(facts) == {"int8"}
    assert facts["int8"]["passed"]
    found = graph_files({name for name in FILES if (out / name).is_file()}, "int8", cuda=True)
    assert (found.model, found.packed) == ("model.cuda.int8.onnx", "packed.cuda.int8.onnx")


@pytest.mark.slow
def test_static_gates_have_halves_too_and_a_model_without_experts_says_why_it_has_none(tmp_path: Path) -> None:
    rows = inputs(SCHEMA, 64, 64)
    static = lively_ranker(SCHEMA, small_config(routing="static", gate={"name": "top_k", "k": 2}))
    report, half = export(static, SCHEMA, rows, tmp_path / "model.onnx"), ExportConfig(cuda="fp16")
    told = write_cuda_graphs(static, report, rows, tmp_path, half)
    assert {fact["form"] for fact in told.facts["files"].values()} == {"static"}
    assert (told.left_out, len(told.facts["files"])) == ({}, 4)
    SCHEMA.save(tmp_path)
    request = inputs(SCHEMA, 1, 100)
    exact, moved = (Engine(tmp_path, file=f"model.cuda{name}.onnx").predict(request) for name in ("", ".fp16"))
    assert all(0 < abs(values - moved[task]).max() < 5e-3 for task, values in exact.items())
    bottom = lively_ranker(SCHEMA, small_config(architecture={"name": "shared_bottom"}))
    told = write_cuda_graphs(bottom, export(bottom, SCHEMA, rows, report.path), rows, tmp_path, half)
    assert list(told.facts["files"]) == [CUDA_MODEL_FILE, CUDA_PACKED_FILE]
    assert "has no experts" in told.left_out["fp16"]


def test_the_files_are_those_that_a_server_looks_for() -> None:
    for precision in get_args(CudaPrecision):
        found = graph_files(FILES, precision, cuda=True)
        assert {found.model, found.packed} <= set(FILES)
        assert (found.model == CUDA_MODEL_FILE) == (precision in {"fp32", "tf32"})
