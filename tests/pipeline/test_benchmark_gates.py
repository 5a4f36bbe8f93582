"""The comparison of gates: differences seed by seed, their interval, and how they are drawn."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from scipy import stats

from benchmarks.gate_plot import drawing
from benchmarks.gate_variants import AS_IT_STANDS, BASELINE, GROUPS, baseline, overrides
from benchmarks.gates import gaps, table
from benchmarks.paired import paired
from models.architectures import PlanRequest
from pipeline.project.project_config import read_config

RECIPE = Path(__file__).parents[2] / "pipeline" / "recipes" / "movielens.yaml"

FOUND = {
    "softmax": [{"like": 0.70, "rating": 1.00, "union/n": 1.0}, {"like": 0.72, "rating": 1.02, "union/n": 1.0}],
    "top_k": [{"like": 0.69, "rating": 0.90, "union/n": 0.25}, {"like": 0.71, "rating": 0.92, "union/n": 0.35}],
    "hash": [{"like": 0.60, "rating": 1.10, "union/n": 0.1}, {"like": 0.85, "rating": 0.95, "union/n": 0.1}],
}
UNITS = {"like": "auc", "rating": "rmse"}


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, base = [0.71, 0.74, 0.70], [0.70, 0.71, 0.705]
    found, known = paired(ours, base), stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_the_table_has_means_for_the_baseline_and_differences_for_the_others() -> None:
    lines = table(FOUND, list(UNITS)).splitlines()
    assert lines[2] == "| softmax | 0.7100 | 1.0100 |  | 1.00 |"
    top_k = "**-0.0100 (-0.0100 .. -0.0100)** | **-0.1000 (-0.1000 .. -0.1000)**"
    assert lines[3].startswith(f"| top_k | {top_k} | 0.0")
    assert "**" not in lines[4]


def test_the_drawing_tells_better_from_worse_by_the_unit() -> None:
    svg = ET.fromstring(drawing(gaps(FOUND, list(UNITS)), UNITS, "softmax"))  # noqa: S314 - made here
    like, rating = svg.findall("{http://www.w3.org/2000/svg}svg")
    for panel, top_k in ((like, "worse"), (rating, "better")):
        dots = [dot.get("class") for dot in panel.iter("{http://www.w3.org/2000/svg}circle")]
        assert dots == [top_k, "open"]


@pytest.mark.parametrize("variant", [name for variants in GROUPS.values() for name in variants])
def test_every_variant_is_a_model_of_the_movielens_recipe(variant: str) -> None:
    model = read_config(RECIPE, overrides("movielens", variant, 0, 1)).model
    request = PlanRequest(("like", "rating"), model.experts, model.gate_scope == "shared")
    assert model.architecture.plan(request).task_streams


def test_changes_to_the_recipe_alone_are_compared_with_it_and_others_with_softmax() -> None:
    assert baseline(["parts", "losses"]) == AS_IT_STANDS
    assert baseline(["parts", "gates"]) == BASELINE
    gates = {name: read_config(RECIPE, overrides("movielens", name, 0, 1)).model.gate.name for name in (
        AS_IT_STANDS, "expert dropout .1", "jrc .3", BASELINE, "ppnet", "top_k",
    )}  # fmt: skip
    assert list(gates.values()) == ["dselect_k", "dselect_k", "dselect_k", "softmax", "softmax", "top_k"]
