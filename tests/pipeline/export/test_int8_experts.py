"""int8 graphs lie beside the float32 ones, where the validation rows allow them and this machine is faster by them."""

import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from contract.errors import ExportError
from contract.graph_names import GOLDEN_FILE, GOLDEN_TOLERANCE, int8_of
from contract.inputs import Inputs
from models.export.onnx_file import write_onnx
from models.export_graph.serving_graph import ServingGraph
from pipeline.export import int8_experts, int8_golden, post_export
from pipeline.export.int8_experts import Int8Job, require_enough, require_faster, time_ratios, write_int8
from pipeline.export.post_export import ExportConfig, LabelledAnswers
from serving.graph.engine import Engine
from serving.store import golden
from serving.store.golden import GoldenCase
from tests.models.small import inputs, lively_ranker, small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A directory as export leaves it before int8, and the features."""
    folder = tmp_path_factory.mktemp("int8")
    features, out = write_features(folder / "features", SCHEMA), folder / "out"
    out.mkdir()
    metadata = {"schema_fingerprint": SCHEMA.fingerprint()}
    write_onnx(ServingGraph(lively_ranker(SCHEMA, small_config()), "dense"), SCHEMA, out / "model.onnx", metadata)
    SCHEMA.save(out)
    rows = inputs(SCHEMA, 1, 40)
    golden.write(out / GOLDEN_FILE, {"forty": GoldenCase(rows, Engine(out).predict(rows))})
    return out, features


def job(world: tuple[Path, Path], tmp_path: Path, wanted: Literal["auto", "none", "experts"]) -> Int8Job:
    return Int8Job(shutil.copytree(world[0], tmp_path / "out"), SCHEMA, world[1], inputs(SCHEMA, 64, 64), wanted)


def test_int8_is_the_default_where_it_is_worth_it() -> None:
    assert ExportConfig().quantize == "auto"
    assert ExportConfig(quantize="experts", cuda="fp32").for_cards()


def test_int8_graphs_lie_beside_float32_ones_and_state_their_tolerance(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = job(world, tmp_path, "experts")
    shutil.copy(asked.out / "model.onnx", asked.out / "fewer.onnx")
    report = write_int8(asked)
    assert report.files == ("model.int8.onnx", "fewer.int8.onnx")
    assert "MatMulIntegerToFloat" in {n.op_type for n in onnx.load(asked.out / "model.int8.onnx").graph.node}
    assert (asked.out / "model.onnx").read_bytes() == (world[0] / "model.onnx").read_bytes()
    assert {task: f["metric"] for task, f in report.figures.items()} == {"like": "auc", "rating": "rmse"}
    (case,) = golden.read(asked.out / GOLDEN_FILE).values()
    exact, served = Engine(asked.out, file="model.onnx"), Engine(asked.out)
    moved = golden.distance(case, served.predict(case.inputs))
    assert 1e-4 < moved < 0.05
    assert served.tolerance == pytest.approx(1e-4 + 2 * moved) == report.tolerances["model.int8.onnx"]
    exact.check("forty", case)
    served.check("forty", case)
    assert GOLDEN_TOLERANCE not in exact.properties
    # An export without int8 leaves none of an earlier one.
    assert write_int8(asked._replace(wanted="none")).files == ()
    assert not list(asked.out.glob("*.int8.onnx"))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("WORTH", 2**15, "below 32768 int8 spares nothing"),
        ("LEAST_ROWS", 513, "like has 512 validation rows, .* fewer than the 513 and 20 that can tell"),
        ("FASTER", 0.0, "int8 is not faster on this machine .* of the time at 100 candidates"),
    ],
)
def test_auto_stays_with_float32_and_says_why(
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, reason: str
) -> None:
    for each, most in {"WORTH": 0, "LEAST_ROWS": 0, "SLOWER": 1e9, "FASTER": 1e9, name: value}.items():
        monkeypatch.setattr(int8_experts, each, most)
    asked = job(world, tmp_path, "auto")
    report = write_int8(asked)
    assert report.files == ()
    assert str(report).startswith("experts stay float32: ")
    assert re.search(reason, report.reason)
    assert not list(asked.out.glob("*.int8.onnx"))


def test_int8_that_costs_too_much_is_refused_where_asked_for_and_left_out_otherwise(
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post_export, "AUC_LOSS", -1.0)
    monkeypatch.setattr(int8_experts, "WORTH", 0)
    monkeypatch.setattr(int8_experts, "LEAST_ROWS", 0)
    monkeypatch.setattr(int8_experts, "require_faster", lambda _ratios: None)
    asked = job(world, tmp_path, "experts")
    with pytest.raises(ExportError, match="int8 experts cost too much on the validation rows"):
        write_int8(asked)
    assert write_int8(asked._replace(wanted="auto")).reason.startswith("int8 experts cost too much")
    assert not list(asked.out.glob("*.int8.onnx"))


def test_what_smaller_tables_lost_counts_against_int8(world: tuple[Path, Path], tmp_path: Path) -> None:
    asked = job(world, tmp_path, "experts")
    asked = asked._replace(float32={"like": {"metric": "auc", "before": 0.99, "after": 0.9896}})
    with pytest.raises(ExportError, match=r"like: auc 0\.99000 -> 0\."):
        write_int8(asked)


def test_golden_answers_that_move_too_far_refuse_int8(
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_golden, "LARGEST_MOVE", 1e-6)
    asked = job(world, tmp_path, "experts")
    with pytest.raises(ExportError, match=r"int8 experts move a golden answer by .* in model\.int8\.onnx"):
        write_int8(asked)
    assert not (asked.out / int8_of("model.onnx")).exists()


def test_a_rare_label_cannot_tell_what_int8_costs() -> None:
    labels = np.zeros((2000, 2), np.float32)
    labels[:19, 0] = 1
    answers = LabelledAnswers([(labels, labels, np.ones_like(labels))])
    with pytest.raises(ExportError, match="like has 2000 validation rows, 19 of its rarer label"):
        require_enough(SCHEMA, answers)
    labels[19, 0] = 1
    require_enough(SCHEMA, LabelledAnswers([(labels, labels, np.ones_like(labels))]))


@pytest.mark.parametrize(
    ("ratios", "is_taken"),
    [
        ((1.0, 0.9, 0.6), True),
        # As small models are measured, now above 1.05 and now below.
        ((1.06, 1.05, 0.88), True),
        ((1.04, 1.04, 0.88), True),
        ((1.08, 1.06, 0.94), False),
        ((1.2, 0.9, 0.6), False),
        ((1.0, 1.2, 0.6), False),
        ((1.0, 1.0, 0.99), False),
    ],
)
def test_int8_is_taken_where_no_request_becomes_clearly_slower(ratios: tuple[float, ...], *, is_taken: bool) -> None:
    seen = dict(zip(("1", "10", "100"), ratios, strict=True))
    if is_taken:
        require_faster(seen)
    else:
        with pytest.raises(ExportError, match="int8 is not faster on this machine"):
            require_faster(seen)


def test_both_graphs_are_timed_on_requests_of_1_10_and_100_candidates() -> None:
    asked: list[tuple[int, int]] = []

    def answer(given: Inputs) -> None:
        asked.append((given.request.rows, given.candidate.rows))

    assert set(time_ratios(answer, answer, inputs(SCHEMA, 64, 64))) == {"1", "10", "100"}
    assert set(asked) == {(1, 1), (1, 10), (1, 100)}
