"""Which form a card gets, and by which measurements."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ExportError
from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, FORM
from models.export import export
from models.export.cuda_export import CudaReport, export_cuda
from models.export.cuda_form import (
    CudaChoice,
    LayerSize,
    LayerTable,
    choose_cuda_form,
    estimate,
    measured_layers,
)
from models.export.half import write_half
from models.export.onnx_file import operators
from serving.graph.engine import Engine
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_2 = {"name": "top_k", "k": 2}


def test_the_table_names_its_machine() -> None:
    table = measured_layers()
    assert "H200" in table.machine
    assert table.measured == "2026-11-27"
    assert len(table.rows) == 12


@pytest.mark.parametrize(("experts", "rows", "best"), [(8, 500, "wide"), (8, 4096, "wide"), (64, 4096, "moe")])
def test_what_was_fastest_is_chosen(experts: int, rows: int, best: str) -> None:
    size, table = LayerSize(960, 256, 128, experts, 2), measured_layers()
    moe, wide = (estimate(form, size, rows, table) for form in ("moe", "wide"))
    assert (moe < wide) == (best == "moe")


def test_more_selected_experts_make_the_operator_dearer_and_the_wide_form_not() -> None:
    table = measured_layers()
    few, many = LayerSize(960, 256, 128, 64, 2), LayerSize(960, 256, 128, 64, 16)
    assert estimate("moe", many, 4096, table) == 8 * estimate("moe", few, 4096, table)
    assert estimate("wide", many, 4096, table) == estimate("wide", few, 4096, table)


def test_a_layer_that_the_operator_cannot_compute_is_wide_with_the_reason() -> None:
    choice = choose_cuda_form(lively_ranker(SCHEMA, small_config(norm="layer", gate=TOP_2)), "sparse", "moe")
    assert choice.form == "wide"
    assert "layer norm" in choice.reason


def test_static_gates_and_models_without_experts_stay_as_they_are() -> None:
    static = lively_ranker(SCHEMA, small_config(routing="static", gate={"name": "dselect_k"}))
    assert choose_cuda_form(static, "static", "auto").form == "static"
    bottom = lively_ranker(SCHEMA, small_config(architecture={"name": "shared_bottom"}))
    assert choose_cuda_form(bottom, "dense", "auto").form == "dense"


def test_half_precision_is_chosen_by_its_own_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"inputs": 8, "hidden": 4, "outputs": 2, "experts": 4, "selected": 8, "rows": 512}
    times = {"fp32": {"moe": 0.4, "stacked": 0.3}, "fp16": {"moe": 0.1, "stacked": 0.2}}
    about = {"machine": "it", "measured": "today"}
    table = LayerTable.model_validate(about | {"rows": [sizes | times]})
    monkeypatch.setattr("models.export.cuda_form.measured_layers", lambda: table)
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_2))
    exact, half = (choose_cuda_form(ranker, "sparse", "auto", each) for each in ("fp32", "fp16"))
    assert (exact.form, half.form) == ("wide", "moe")
    assert "moe 0.100 ms and wide 0.200 at 512 rows" in half.reason
    assert "in fp16" in half.reason
    # A table without them says by whose figures it was chosen.
    table = LayerTable.model_validate(about | {"rows": [sizes | {"fp32": times["fp32"]}]})
    other = choose_cuda_form(ranker, "sparse", "auto", "fp16")
    assert (other.form, "in fp32" in other.reason) == ("wide", True)


@pytest.mark.parametrize(("at_500", "at_4096", "best"), [(1.25, 0.33, "moe"), (1.6, 1.05, "wide"), (0.9, 1.2, "wide")])
def test_small_and_large_runs_have_the_same_say(
    monkeypatch: pytest.MonkeyPatch, at_500: float, at_4096: float, best: str
) -> None:
    """A form that is a quarter faster for few rows, and three times slower for many, is not chosen."""
    sizes = {"inputs": 960, "hidden": 256, "outputs": 128, "experts": 4, "selected": 8}
    rows = [
        sizes | {"rows": 500, "fp32": {"moe": 0.2 * at_500, "stacked": 0.2}},
        sizes | {"rows": 4096, "fp32": {"moe": 3.0 * at_4096, "stacked": 3.0}},
    ]
    table = LayerTable.model_validate({"machine": "it", "measured": "today", "rows": rows})
    monkeypatch.setattr("models.export.cuda_form.measured_layers", lambda: table)
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_2))
    assert choose_cuda_form(ranker, "sparse", "auto").form == best


def test_half_precision_of_a_batched_product_is_told_from_one_product_by_the_exact_figures() -> None:
    sizes = {"inputs": 960, "hidden": 256, "outputs": 128, "experts": 8, "selected": 2, "rows": 500}
    times = {"fp32": {"moe": 0.223, "stacked": 0.186, "wide": 0.148}, "fp16": {"moe": 0.117, "wide": 0.13}}
    table = LayerTable.model_validate({"machine": "it", "measured": "today", "rows": [sizes | times]})
    size = LayerSize(960, 256, 128, 8, 2)
    assert estimate("moe", size, 500, table, "fp16") == 0.117
    assert estimate("wide", size, 500, table, "fp16") == pytest.approx(0.13 * 0.186 / 0.148)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_of_few_bits_are_the_operators_or_refused(precision: Any) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_2))
    choice = choose_cuda_form(ranker, "sparse", "wide", precision)
    assert (choice.form, "com.microsoft.QMoE" in choice.reason) == ("moe", True)
    normed = lively_ranker(SCHEMA, small_config(norm="layer", gate=TOP_2))
    with pytest.raises(ExportError, match=r"does not fit: .*layer norm"):
        choose_cuda_form(normed, "sparse", "auto", precision)
    with pytest.raises(ExportError, match="does not fit: static gates"):
        choose_cuda_form(ranker, "static", "auto", precision)


def test_a_table_as_the_benchmark_writes_it_is_enough() -> None:
    sizes = {"inputs": 8, "hidden": 4, "outputs": 2, "experts": 8, "selected": 2, "rows": 64}
    times = {"moe": 0.1, "stacked": 0.2, "dense": 0.3}
    table = LayerTable.model_validate({"machine": "it", "measured": "today", "rows": [sizes | {"fp32": times}]})
    assert estimate("wide", LayerSize(8, 4, 2, 16, 2), 64, table) == pytest.approx(0.4)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        LayerTable.model_validate({"machine": "none", "measured": "never", "rows": []})


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[CudaReport, Path]]:
    """One model's graph in two folders, and beside it in each those of one form for cards."""
    folder = tmp_path_factory.mktemp("plain")
    SCHEMA.save(folder)
    ranker, rows = lively_ranker(SCHEMA, small_config(gate=TOP_2)), inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, rows, folder / "model.onnx")
    found = {}
    for form in ("moe", "wide"):
        own = tmp_path_factory.mktemp(form)
        shutil.copytree(folder, own, dirs_exist_ok=True)
        choice = CudaChoice("moe" if form == "moe" else "wide", "asked for")
        found[form] = export_cuda(ranker, replace(report, path=own / "model.onnx"), rows, choice), own
    return found


@pytest.mark.slow
def test_the_graphs_for_a_card_say_their_form_and_answer_requests_of_every_kind(cards: Any) -> None:
    found, folder = cards["moe"]
    assert found.choice.form == "moe"
    assert found.files == (CUDA_MODEL_FILE, CUDA_PACKED_FILE)
    assert found.worst_difference <= 1e-5
    engine = Engine(folder, file=CUDA_MODEL_FILE)
    assert engine.properties[FORM] == "moe"
    assert json.loads(engine.properties["gates"])
    engine.several = Engine(folder, file=CUDA_PACKED_FILE)
    for each in (inputs(SCHEMA, 1, 7), inputs(SCHEMA, 7, 7), inputs(SCHEMA, 1, 1)):
        expected = Engine(folder).predict(each)
        for task, values in engine.predict(each).items():
            assert values == pytest.approx(expected[task], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["moe", "wide"])
def test_half_precision_moves_answers_a_little_and_leaves_the_router_alone(cards: Any, form: str) -> None:
    folder = cards[form][1]
    count = write_half(folder / CUDA_MODEL_FILE, folder / "half.onnx")
    assert count == (1 if form == "moe" else 2)
    assert operators(folder / "half.onnx") == sorted({*operators(folder / CUDA_MODEL_FILE), "Cast"})
    (folder / "half.onnx").replace(folder / "model.cuda.fp16.onnx")
    request = inputs(SCHEMA, 1, 500)
    exact, experts = Engine(folder).predict_with_experts(request)
    half, half_experts = Engine(folder, file="model.cuda.fp16.onnx").predict_with_experts(request)
    assert (experts.used() == half_experts.used()).all()
    for task, values in exact.items():
        moved = abs(values - half[task]).max()
        assert 0 < moved < 5e-3
