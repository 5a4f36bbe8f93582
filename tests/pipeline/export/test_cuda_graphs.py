"""Graphs for a card beside a bundle's own: when they are written, and what is told of half precision."""

from pathlib import Path
from typing import get_args

import pytest

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, variant_of
from models.export import ExportReport, export
from models.ranker import Ranker
from pipeline.export.cuda_graphs import FILES, judge_cuda_graphs, write_cuda_graphs
from pipeline.export.post_export import ExportConfig
from serving.graph.cuda_tolerance import CudaPrecision
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
    told = write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, config)
    assert (told["form"], told["reason"]) == ("moe", "asked for")
    halves = {variant_of(name, "fp16") for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE)}
    assert {name for name in FILES if (out / name).is_file()} == {CUDA_MODEL_FILE, CUDA_PACKED_FILE} | halves
    facts = judge_cuda_graphs(out, SCHEMA, valid)["fp16"]
    assert facts["passed"]
    assert 1e-4 < facts["tolerance"] < 0.02
    # What an earlier export wrote must not be published beside other weights.
    assert write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, ExportConfig(cuda="none")) == {}
    assert not any((out / name).is_file() for name in FILES)
    assert judge_cuda_graphs(out, SCHEMA, valid) == {}


@pytest.mark.slow
def test_weights_of_eight_bits_are_judged_too(exported: tuple[Ranker, ExportReport], tmp_path: Path) -> None:
    ranker, report = exported
    out, valid = report.path.parent, write_features(tmp_path / "features", SCHEMA) / "valid"
    # Asked for with the form left open, they take the operator's.
    told = write_cuda_graphs(ranker, report, inputs(SCHEMA, 64, 64), out, ExportConfig(cuda="int8"))
    assert told["form"] == "moe"
    facts = judge_cuda_graphs(out, SCHEMA, valid)
    assert set(facts) == {"int8"}
    assert facts["int8"]["passed"]
    found = graph_files({name for name in FILES if (out / name).is_file()}, "int8", cuda=True)
    assert (found.model, found.packed) == ("model.cuda.int8.onnx", "packed.cuda.int8.onnx")


def test_the_files_are_those_that_a_server_looks_for() -> None:
    for precision in get_args(CudaPrecision):
        found = graph_files(FILES, precision, cuda=True)
        assert {found.model, found.packed} <= set(FILES)
        assert (found.model == CUDA_MODEL_FILE) == (precision in {"fp32", "tf32"})
