"""A bundle with prepared items: which graph answers a request, and that all of them answer alike."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import PredictionError
from contract.inputs import Inputs
from contract.prepared import taken, with_items
from contract.score import Score, default_score
from features.encode.encoder import Encoder
from features.encode.vocabulary import Vocabularies
from features.online.prepared_items import PreparedEncoder, item_inputs, preparable
from features.online.pushed_values import PushedColumn
from features.online.request_encoder import RankRequest, RequestEncoder
from models.export import export
from models.export.prepared_export import PreparedGraph, export_prepared
from models.export_graph.item_shares import PreparedItems
from serving.graph.engine import Engine
from serving.graph.model_graphs import ModelGraphs
from serving.graph.prepared_graph import PreparedEngine
from serving.store.golden import GoldenCase, read, write
from tests.models.small import inputs, lively_ranker, small_config
from tests.tiny_bundle import ITEMS, VALUES, make_schema, online_tables

pytestmark = pytest.mark.slow

SCHEMA = make_schema()
TABLES = online_tables()
ITEM = TABLES.item
assert ITEM is not None
SCORE = Score(default_score(SCHEMA.tasks), SCHEMA.tasks)
REQUEST = RankRequest(3, [105, 100, 119, 999], {"tab": "home"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}))
    sample = inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, sample, folder / "model.onnx", "sparse")
    assert ITEM is not None
    items = PreparedItems(preparable(SCHEMA, ITEM), item_inputs(SCHEMA, ITEM))
    export_prepared(PreparedGraph(ranker, report, items), sample, folder / "prepared.onnx")
    SCHEMA.save(folder)
    return folder


@pytest.fixture(scope="module")
def general() -> RequestEncoder:
    return RequestEncoder(SCHEMA, Encoder(SCHEMA, Vocabularies(VALUES)), TABLES)


@pytest.fixture(scope="module")
def lean(folder: Path, general: RequestEncoder) -> PreparedEncoder:
    return PreparedEncoder(general, PreparedEngine(folder).names)


def answers(folder: Path, encoder: Any, request: RankRequest, pushed: Any = None) -> tuple[bool, np.ndarray]:
    """Whether the prepared graph answered, and what."""
    encoded = encoder.encode(request, pushed=pushed)
    graphs = ModelGraphs(Engine(folder), prepared=PreparedEngine(folder))
    scored = graphs.predict(encoded, lambda: encoded.inputs, SCORE, experts=False, stage="")
    return bool(encoded.rows_of), scored.predictions["rating"]


def test_known_and_unknown_items_are_answered_by_their_rows(folder: Path, lean: Any, general: Any) -> None:
    prepared, found = answers(folder, lean, REQUEST)
    assert prepared
    np.testing.assert_allclose(found, answers(folder, general, REQUEST)[1], atol=1e-5)
    assert lean.encode(REQUEST).unknown_items.tolist() == [False, False, False, True]
    assert len(set(found.tolist())) == 4


def test_a_request_with_its_own_value_of_a_prepared_feature_takes_the_general_graph(
    folder: Path, lean: Any, general: Any
) -> None:
    request = RankRequest(3, REQUEST.items, {"tab": "home"}, item_features={"price": [9.0, 1.0, 2.0, 3.0]})
    prepared, found = answers(folder, lean, request)
    assert not prepared
    np.testing.assert_array_equal(found, answers(folder, general, request)[1])
    assert np.abs(found - answers(folder, lean, REQUEST)[1]).max() > 1e-3


def test_a_request_with_its_own_lists_still_takes_the_prepared_graph(folder: Path, lean: Any, general: Any) -> None:
    """The table of items has no words, so that every request brings them."""
    words: list[Sequence[str]] = [["a", "b"], [], ["c"], ["a"]]
    request = RankRequest(3, REQUEST.items, {"tab": "home"}, item_features={"words": words})
    prepared, found = answers(folder, lean, request)
    assert prepared
    np.testing.assert_allclose(found, answers(folder, general, request)[1], atol=1e-5)


class Pushed:
    """Values as a store would have them; counts how often it is asked."""

    def __init__(self, side: Any, name: str) -> None:
        self.side, self.name, self.asked = side, name, 0

    def entities(self, user: object, items: object) -> Iterator[PushedColumn]:
        del user, items
        self.asked += 1
        yield PushedColumn(self.side, self.name, np.array([0]), [7.5])

    def pairs(self, side: object, keys: object, hashes: object) -> Iterator[PushedColumn]:
        del side, keys, hashes
        yield from ()

    def refuse(self, name: str, error: Exception) -> None:
        raise AssertionError(name) from error


@pytest.mark.parametrize(("side", "name"), [("item", "price"), ("user", "activity")])
def test_what_was_pushed_of_an_item_counts_and_is_read_once(
    side: str, name: str, folder: Path, lean: Any, general: Any
) -> None:
    pushed = Pushed(side, name)
    by_rows, found = answers(folder, lean, REQUEST, pushed)
    assert (by_rows, pushed.asked) == (True, 1)
    np.testing.assert_allclose(found, answers(folder, general, REQUEST, Pushed(side, name))[1], atol=1e-5)
    assert np.abs(found - answers(folder, general, REQUEST)[1]).max() > 1e-4


def test_a_golden_request_runs_through_both_graphs(folder: Path, tmp_path: Path) -> None:
    assert ITEM is not None
    rows = np.array([0, 5, len(ITEMS)])
    whole = item_inputs(SCHEMA, ITEM)
    given = inputs(SCHEMA, 1, 3)
    candidate = with_items(given.candidate, taken(whole, rows), SCHEMA.candidate, PreparedEngine(folder).names)
    case = Inputs(given.request, candidate)
    write(tmp_path / "golden.npz", {"prepared": GoldenCase(case, Engine(folder).predict(case), rows)})
    found = read(tmp_path / "golden.npz")["prepared"]
    Engine(folder).check("prepared", found)
    PreparedEngine(folder).check("prepared", found)
    wrong = GoldenCase(found.inputs, found.answers, rows[::-1].copy())
    with pytest.raises(PredictionError, match="golden request prepared"):
        PreparedEngine(folder).check("prepared", wrong)
