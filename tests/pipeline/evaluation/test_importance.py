"""Permutation importance on the served graph, and which experts each slice uses."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, KeySpec, Schema, TaskSpec
from features.batches import BatchReader
from pipeline.evaluation.expert_slices import ExpertSlices, expert_slices
from pipeline.evaluation.feature_groups import feature_groups
from pipeline.evaluation.importance import IMPORTANCE_FILE, Importance, importance
from pipeline.evaluation.shuffled_inputs import shuffled, slice_of
from serving.graph.engine import Engine
from tests.pipeline.conftest import Judged


@pytest.fixture(scope="module")
def found(judged: Judged) -> Importance:
    engine = Engine(judged.bundle)
    return importance(engine, judged.test, engine.schema, permutations=2)


def test_what_the_graph_looks_at_is_worth_something_and_what_it_ignores_nothing(found: Importance) -> None:
    by_name = {each.name: each.tasks["like"] for each in found.features}
    assert by_name["recent"].value == by_name["words"].value == 0.0
    for used in ("user_id", "item_id", "tab"):
        assert 0.0 < by_name[used].low <= by_name[used].value <= by_name[used].high


def test_the_whole_metric_is_that_of_the_evaluation(judged: Judged, found: Importance) -> None:
    assert found.metrics == {"like": "auc", "rating": "rmse"}
    assert found.baseline_score["like"] == pytest.approx(judged.evaluation.tasks["like"]["auc"].value, abs=1e-9)
    assert found.baseline_score["rating"] == pytest.approx(judged.evaluation.tasks["rating"]["rmse"].value, abs=1e-6)


def test_it_is_read_back_and_ranked(found: Importance, tmp_path: Path) -> None:
    assert Importance.load(tmp_path) is None
    found.save(tmp_path)
    again = Importance.load(tmp_path)
    assert again == found
    values = [each.tasks["like"].value for each in found.most("like", 4)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 4


def test_a_file_that_an_earlier_version_wrote_is_read(found: Importance, tmp_path: Path) -> None:
    text = found.model_dump_json().replace('"baseline_score"', '"whole"')
    (tmp_path / IMPORTANCE_FILE).write_text(text, encoding="utf-8")
    assert Importance.load(tmp_path) == found


def test_lists_pairs_and_vectors_are_groups() -> None:
    schema = Schema(
        features=(
            IdSpec(name="bought", kind="id_list", side="user", rows=5, max_length=3),
            IdSpec(name="seen", kind="id_list", side="user", rows=5, max_length=3),
            DenseSpec(name="v_0", side="item", encoding="standardise", vector="v"),
            DenseSpec(name="v_1", side="item", encoding="standardise", vector="v"),
            DenseSpec(name="before", side="pair", keys=("u", "i"), encoding="standardise"),
            IdSpec(name="both", kind="id", side="pair", keys=("u", "i"), rows=9),
        ),
        tasks=(TaskSpec(name="like", kind="binary"),),
        keys=(KeySpec(name="u", side="user"), KeySpec(name="i", side="item")),
    )
    assert feature_groups(schema) == {
        "bought": ("bought",),
        "seen": ("seen",),
        "v": ("v_0", "v_1"),
        "before": ("before",),
        "both": ("both",),
        "all lists of the user": ("bought", "seen"),
        "all of u x i": ("before", "both"),
    }


def _lists(part: PartInputs, feature: int) -> list[list[int]]:
    begin = int(part.list_lengths[:feature].sum())
    ends = begin + np.concatenate([[0], np.cumsum(part.list_lengths[feature])])
    return [part.list_values[low:high].tolist() for low, high in pairwise(ends)]


def test_shuffling_moves_the_named_features_alone_by_the_order(judged: Judged) -> None:
    schema = Engine(judged.bundle).schema
    inputs = next(BatchReader(judged.test, schema, 50).epoch()).inputs
    order = np.random.default_rng(1).permutation(50)
    changed = shuffled(inputs, schema, ("recent", "tab", "price"), order)
    assert changed.request.ids[:, 1].tolist() == inputs.request.ids[order, 1].tolist()
    assert changed.request.ids[:, 0].tolist() == inputs.request.ids[:, 0].tolist()
    assert changed.candidate.dense.tolist() == inputs.candidate.dense[order].tolist()
    moved, still = _lists(changed.request, 0), _lists(inputs.request, 0)
    assert moved == [still[place] for place in order]
    assert _lists(changed.candidate, 0) == _lists(inputs.candidate, 0)


def test_slices_of_rows_put_together_are_the_rows(judged: Judged) -> None:
    schema = Engine(judged.bundle).schema
    inputs = next(BatchReader(judged.test, schema, 50).epoch()).inputs
    parts = [slice_of(inputs.request, begin, begin + 25) for begin in (0, 25)]
    assert [_lists(part, 0) for part in parts] == [_lists(inputs.request, 0)[:25], _lists(inputs.request, 0)[25:]]
    engine = Engine(judged.bundle)
    whole = engine.predict(inputs)["like"]
    halves = [
        engine.predict(
            Inputs(slice_of(inputs.request, begin, begin + 25), slice_of(inputs.candidate, begin, begin + 25))
        )
        for begin in (0, 25)
    ]
    assert np.concatenate([half["like"] for half in halves]).tolist() == whole.tolist()


def test_experts_by_slice_are_those_of_its_rows(judged: Judged) -> None:
    """The tiny graph takes the first expert for positive prices and the second for negative ones."""
    engine = Engine(judged.bundle)
    rows = judged.evaluation.rows
    first_half = np.arange(rows) < rows // 2
    found = expert_slices(engine, judged.test, engine.schema, {"half": {"first": first_half, "second": ~first_half}})
    assert isinstance(found, ExpertSlices)
    assert found.levels == 1
    by_price, static = found.gates
    assert [part.name for part in by_price.slices] == ["all rows", "half: first", "half: second"]
    assert by_price.slices[0].share[0] == pytest.approx(1.0, abs=0.01)
    assert static.slices[1].weight == (0.0, 1.0)
    assert sum(part.rows for part in static.slices[1:]) == rows
