"""The HTML report."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pydantic import JsonValue

from contract.errors import DataError
from pipeline.evaluation.curves import Curves
from pipeline.evaluation.result import Evaluation, SliceTest
from pipeline.report import render, write_report
from pipeline.report.report_page import ReportFacts
from pipeline.report.svg import axis, number
from tests.pipeline.conftest import Judged

EPOCHS: list[dict[str, JsonValue]] = [
    {"epoch": n, "train": {"loss": 1.0 / n}, "valid": {"like": {"auc": 0.5 + 0.1 * n}}, "best": True} for n in (1, 2, 3)
]


def _shown(judged: Judged, **experts: object) -> str:
    evaluation = judged.evaluation.model_copy(update={"experts": experts})
    return render(evaluation, Curves.load(judged.out), ReportFacts(epochs=EPOCHS, facts={"training rows": 3000}))


class _Balance(HTMLParser):
    """Fails on a tag that is closed but not open."""

    void = frozenset({"meta", "br", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_refers_to_nothing_outside(judged: Judged) -> None:
    page = _shown(judged)
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import|https?://", page)
    assert len(page) < 300_000


def test_every_plot_is_valid_xml_with_finite_places(judged: Judged) -> None:
    plots = re.findall(r"<svg.*?</svg>", _shown(judged), flags=re.DOTALL)
    headlines, of_like, of_rating, of_training, of_slices = 2, 4, 2, 2, 6
    assert len(plots) == headlines + of_like + of_rating + of_training + of_slices
    for plot in plots:
        ET.fromstring(plot)  # noqa: S314 - our own text
        assert "nan" not in plot
        assert "inf" not in plot


def test_headline_values_and_intervals_stand_in_the_page(judged: Judged) -> None:
    page = _shown(judged)
    auc = judged.evaluation.tasks["like"]["auc"]
    assert f"{number(auc.value)} <small>AUC" in page
    assert f"95 %: {number(auc.low)} to {number(auc.high)}" in page
    assert "better than trees" in page
    assert "training rows" in page
    assert "3000" in page


def test_a_model_worse_than_a_baseline_is_said_to_be(judged: Judged) -> None:
    evaluation = judged.evaluation
    swapped = evaluation.model_copy(
        update={"tasks": evaluation.baselines["constant"], "baselines": {"old": evaluation.tasks}}
    )
    page = render(swapped, Curves.load(judged.out))
    assert "worse than old" in page
    assert "better than" not in page.replace("is better", "")


def test_training_curves_come_from_any_numbers_of_an_epoch(judged: Judged) -> None:
    page = _shown(judged)
    assert "valid.like" in page
    assert "valid.like, epoch 3: 0.8000" in page
    assert "best by epoch" not in page


def test_the_heat_map_shows_tasks_by_experts(judged: Judged) -> None:
    page = _shown(judged, gate="dselect_k", share=[[1.0, 0.0, 0.25], [0.0, 1.0, 0.5]], weight=[[0.9, 0, 0.1]] * 2)
    assert "dselect_k" in page
    assert re.search(r'--share:0\.250">25 %<small> \(0\.10\)', page)


def test_matrices_of_other_tasks_are_not_shown(judged: Judged) -> None:
    assert 'class="heat"' not in _shown(judged, share=[[1.0]], weight=[[1.0]])


def test_slices_that_differ_are_marked_and_the_adjustment_is_named(judged: Judged) -> None:
    name, parts = next(iter(judged.evaluation.slices.items()))
    value, part = next(iter(parts.items()))
    tests = {"like": {"auc": SliceTest(difference=-0.1, p_adjusted=0.01)}}
    others = {other: each.model_copy(update={"tests": {}}) for other, each in parts.items()}
    marked = {name: others | {value: part.model_copy(update={"tests": tests})}}
    page = render(judged.evaluation.model_copy(update={"slices": marked}), Curves.load(judged.out))
    assert page.count('title="worse: -0.1000 against all rows, adjusted p 0.010"') == 1
    assert "by 1 test with p-values adjusted together (Holm)" in page
    assert "1 is marked" in page


def test_names_are_escaped(judged: Judged) -> None:
    page = render(
        judged.evaluation.model_copy(update={"model": "<b>x</b>"}),
        Curves.load(judged.out),
        ReportFacts(facts={"<i>": "<u>"}),
    )
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x" in page
    assert "<u>" not in page


def test_it_is_written_from_files(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps({"epochs": EPOCHS}))
    path = write_report(judged.out, tmp_path / "r.html", history=tmp_path / "history.json")
    assert "tiny/1" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["{", '{"epochs": 3}', "[1, 2]"])
def test_a_history_of_another_shape_is_refused(judged: Judged, tmp_path: Path, text: str) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(DataError, match=r"history\.json"):
        write_report(judged.out, tmp_path / "r.html", history=tmp_path / "history.json")
    assert not (tmp_path / "r.html").exists()


def test_a_missing_evaluation_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluate again"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="moerank evaluate"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize("values", [[0.5], [0.0], [], [1e-6, 2e-6], [-3.0, 1e6], [float("nan"), 1.0, 2.0]])
def test_an_axis_holds_its_values_and_has_round_ticks(values: list[float]) -> None:
    found = axis(values, "x")
    finite = [value for value in values if not math.isnan(value)]
    assert all(found.low < value < found.high for value in finite)
    assert 2 <= len(found.ticks) <= 12
    assert all(found.low <= tick <= found.high for tick in found.ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0.74444, "0.7444"), (1.1, "1.1000"), (12345.6, "1.23e+04"), (3e-9, "0"), (0.00042, "0.00042")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
