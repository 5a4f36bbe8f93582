"""The comparison of gates: differences seed by seed, their interval, and how they are drawn."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from benchmarks.gate_columns import film_vectors, scored
from benchmarks.gate_plot import drawing
from benchmarks.gate_variants import AS_IT_STANDS, BASELINE, GROUPS, baseline, overrides
from benchmarks.gates import gaps, table
from benchmarks.paired import paired
from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.hashing import hash_array
from models.architectures import PlanRequest
from pipeline.project.project_config import read_config

RECIPE = Path(__file__).parents[2] / "pipeline" / "recipes" / "movielens.yaml"

FOUND = {
    "softmax": [
        {"like": 0.70, "rating": 1.00, "union/n": 1.0, "CPU s": 9.0},
        {"like": 0.72, "rating": 1.02, "union/n": 1.0, "CPU s": 9.0},
    ],
    "top_k": [
        {"like": 0.69, "rating": 0.90, "union/n": 0.25, "CPU s": 6.0},
        {"like": 0.71, "rating": 0.92, "union/n": 0.35, "CPU s": 8.0},
    ],
    "hash": [
        {"like": 0.60, "rating": 1.10, "union/n": 0.1, "CPU s": 5.0},
        {"like": 0.85, "rating": 0.95, "union/n": 0.1, "CPU s": 5.0},
    ],
}
UNITS = {"like": "auc", "rating": "rmse"}


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, base = [0.71, 0.74, 0.70], [0.70, 0.71, 0.705]
    found, known = paired(ours, base), stats.ttest_rel(ours, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_the_table_has_means_for_the_baseline_and_differences_for_the_others() -> None:
    lines = table(FOUND, list(UNITS)).splitlines()
    assert lines[2] == "| softmax | 0.7100 | 1.0100 |  | 1.00 | 9 |"
    top_k = "**-0.0100 (-0.0100 .. -0.0100)** | **-0.1000 (-0.1000 .. -0.1000)**"
    assert lines[3].startswith(f"| top_k | {top_k} | 0.0")
    assert lines[3].endswith("| 0.30 | 7 |")
    assert "**" not in lines[4]


def test_the_drawing_tells_better_from_worse_by_the_unit() -> None:
    svg = ET.fromstring(drawing(gaps(FOUND, list(UNITS)), UNITS, "softmax"))  # noqa: S314 - made here
    like, rating = svg.findall("{http://www.w3.org/2000/svg}svg")
    for panel, top_k in ((like, "worse"), (rating, "better")):
        dots = [dot.get("class") for dot in panel.iter("{http://www.w3.org/2000/svg}circle")]
        assert dots == [top_k, "open"]


def test_scores_stand_beside_their_own_rows_in_the_order_of_the_log() -> None:
    draw = np.random.default_rng(0)
    time = pa.array(draw.integers(0, 10**9, 50) * 1000).cast(pa.timestamp("ms", "UTC"))
    events = pa.table({"user_id": draw.integers(1, 9, 50), "item_id": draw.integers(1, 9, 50), "event_time": time})
    names = [USER_HASH, ITEM_HASH, TIME]
    columns = hash_array(events["user_id"]), hash_array(events["item_id"]), time.cast(pa.int64())
    scores = pa.table([*columns, pa.array(np.arange(50.0))], names=[*names, "trees_like"]).take(draw.permutation(50))
    found = scored(events, scores)
    assert found.drop(["trees_like"]) == events
    assert found["trees_like"].to_pylist() == list(range(50))


def test_films_that_the_same_users_saw_have_the_same_vector() -> None:
    seen = pa.table({
        USER_HASH: pa.array(np.repeat(np.arange(20, dtype=np.uint64), 2)),
        ITEM_HASH: pa.array([film for user in range(20) for film in ((1, 2) if user % 2 else (3, 4))], pa.uint64()),
    })  # fmt: skip
    vectors = film_vectors(seen, np.array([1, 2, 3, 4, 5], dtype=np.uint64))
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    assert np.allclose(vectors[2], vectors[3], atol=1e-5)
    assert not np.allclose(vectors[0], vectors[2], atol=0.1)
    assert np.allclose(vectors[4], 0.0, atol=1e-5)


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
