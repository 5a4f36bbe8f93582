"""Prepared rows of items, users and pairs: which graph answers a request, and that both answer alike."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import PredictionError
from contract.hashing import combine, hash_array
from contract.score import Score, default_score
from features.encode.encoder import Encoder
from features.encode.vocabulary import Vocabularies
from features.online.compiled import without_compiler
from features.online.online_table import OnlineTable, OnlineTables
from features.online.prepared_items import PreparedEncoder, features_of, part_inputs
from features.online.pushed_values import PushedColumn
from features.online.request_encoder import RankRequest, RequestEncoder
from features.online.share_rows import RowForm, ShareRows, ShareTables
from features.point_in_time.ragged import Ragged
from models.export import export
from models.export.prepared_export import export_shared
from models.export_graph.shared_tables import PreparedShares, SharedTable
from models.ranker import Ranker
from serving.graph.engine import Engine
from serving.graph.model_graphs import ModelGraphs
from serving.graph.prepared_graph import PreparedEngine
from serving.registry.registry import Registry
from serving.store.bundle import publish
from serving.store.golden import GoldenCase
from tests.models.export import test_prepared
from tests.models.export.test_prepared import SIZES
from tests.models.small import inputs, lively_ranker, small_config

USERS, ITEMS = list(range(1, 21)), list(range(100, 125))
RNG = np.random.default_rng(0)


def table(hashes: Any, ids: tuple[str, ...], dense: tuple[str, ...], **lists: Ragged) -> OnlineTable:
    """A table of random values, the row of unknown keys among them."""
    rows = len(hashes) + 1
    columns = np.stack([RNG.integers(1, 20, rows) for _ in ids], 1) if ids else np.zeros((rows, 0))
    numbers = RNG.uniform(0, 2, (rows, len(dense))).astype(np.float32)
    none = np.zeros((rows, 0), np.uint64)
    return OnlineTable(np.sort(hashes), columns.astype(np.int32), numbers, none, lists, ids, dense)


def tables() -> OnlineTables:
    users, items = hash_array(pa.array(USERS)), hash_array(pa.array(ITEMS))
    lengths = RNG.integers(0, 4, len(items) + 1)
    genres = Ragged.packed(RNG.integers(1, 9, lengths.sum()).astype(np.int32), lengths)
    pairs = combine([np.repeat(users, 10), np.tile(items[:10], len(users))])
    return OnlineTables(
        table(users, ("user",), ("age",)),
        table(items, ("item",), ("price",), genres=genres),
        {("user", "item"): table(pairs, (), ("rate",))},
    )


TABLES = tables()
VOCABULARIES = Vocabularies({"user": pa.array(USERS), "item": pa.array(ITEMS), "genres": pa.array(range(8))})
SCHEMA = test_prepared.SCHEMA.model_copy(update={"vocabulary_sha256": VOCABULARIES.sha256()})
GENERAL = RequestEncoder(SCHEMA, Encoder(SCHEMA, VOCABULARIES), TABLES)
REQUEST = RankRequest(3, [105, 100, 119, 999])
SCORE = Score(default_score(SCHEMA.tasks), SCHEMA.tasks)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return lively_ranker(SCHEMA, small_config(**(SIZES | {"bottom": (16,), "gate": {"name": "top_k", "k": 2}})))


@pytest.fixture(scope="module")
def folder(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    sample = inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, sample, folder / "model.onnx", "sparse")
    shares = shares_of(ranker, TABLES)
    export_shared(ranker, report, shares, sample, folder / "prepared.onnx")
    save(shares, folder / "shares")
    SCHEMA.save(folder)
    return folder


def shares_of(ranker: Ranker, online_tables: OnlineTables) -> PreparedShares:
    parts: dict[str, Any] = {"user": "request", "item": "candidate", "pair_0": "candidate"}
    each = features_of(SCHEMA, online_tables)
    shared = [
        SharedTable(name, parts[name], each[name], part_inputs(SCHEMA.part(parts[name]), online))
        for name, online in online_tables.by_name().items()
    ]
    return PreparedShares(ranker, shared)


def save(shares: PreparedShares, target: Path) -> None:
    ShareTables({name: ShareRows.stored(rows, "fp32") for name, rows in shares.rows.items()}).save(target)


@pytest.fixture(scope="module")
def prepared(folder: Path) -> PreparedEngine:
    return PreparedEngine(folder)


def answers(folder: Path, prepared: PreparedEngine, request: RankRequest, pushed: Any = None) -> tuple[bool, Any, Any]:
    """Whether the prepared graph answered, what, and what the general graph says."""
    encoder = prepared.encoder(GENERAL)
    encoded, whole = encoder.encode(request, pushed=pushed), GENERAL.encode(request, pushed=pushed)
    general = Engine(folder).predict(whole.inputs)["rating"]
    for array, values in encoder.whole(encoded).arrays().items():
        np.testing.assert_array_equal(values, whole.inputs.arrays()[array])
    graphs = ModelGraphs(Engine(folder), prepared=prepared)
    found = graphs.predict(encoded, lambda: whole.inputs, SCORE, experts=False, stage="").predictions["rating"]
    return bool(encoded.rows_of), found, general


@pytest.mark.parametrize("user", [3, 777, None])
def test_known_and_unknown_users_items_and_pairs_are_answered_by_their_rows(
    user: int | None, folder: Path, prepared: PreparedEngine
) -> None:
    by_rows, found, general = answers(folder, prepared, RankRequest(user, REQUEST.items))
    assert by_rows
    np.testing.assert_allclose(found, general, atol=1e-5)
    assert len(set(found.tolist())) == 4


@pytest.mark.parametrize(
    "own",
    [
        {"item_features": {"price": [9.0, 1.0, 2.0, 3.0]}},
        {"item_features": {"rate": [0.1, 0.9, 1.2, 2.0]}},
        {"user_features": {"age": 3.0}},
    ],
    ids=["item", "pair", "user"],
)
def test_a_request_with_its_own_values_takes_the_general_graph(
    own: dict[str, Any], folder: Path, prepared: PreparedEngine
) -> None:
    by_rows, found, general = answers(folder, prepared, RankRequest(3, REQUEST.items, **own))
    assert not by_rows
    np.testing.assert_array_equal(found, general)
    assert np.abs(found - answers(folder, prepared, REQUEST)[1]).max() > 1e-3


class Pushed:
    """A value as a store would have it, of a user, an item or a pair."""

    def __init__(self, name: str) -> None:
        self.name = name

    def entities(self, user: object, items: object) -> Iterator[PushedColumn]:
        del user, items
        sides: dict[str, Any] = {"age": "user", "price": "item"}
        if self.name in sides:
            yield PushedColumn(sides[self.name], self.name, np.array([0]), [1.5])

    def pairs(self, side: Any, keys: Sequence[str], hashes: object) -> Iterator[PushedColumn]:
        del keys, hashes
        if self.name == "rate":
            yield PushedColumn(side, "rate", np.array([1]), [1.5])

    def refuse(self, name: str, error: Exception) -> None:
        raise AssertionError(name) from error


@pytest.mark.parametrize(("name", "changed"), [("age", [0, 1, 2, 3]), ("price", [0]), ("rate", [1])])
def test_candidates_of_whom_something_was_pushed_take_the_general_graph_and_others_their_rows(
    name: str, changed: list[int], folder: Path, prepared: PreparedEngine
) -> None:
    by_rows, found, general = answers(folder, prepared, REQUEST, Pushed(name))
    assert by_rows == (name != "age")
    np.testing.assert_allclose(found, general, atol=1e-5)
    moved = np.abs(found - answers(folder, prepared, REQUEST)[1])
    assert np.flatnonzero(moved > 1e-4).tolist() == changed
    encoded = prepared.encoder(GENERAL).encode(REQUEST, pushed=Pushed(name))
    assert (encoded.apart is None) == (name == "age")
    assert encoded.pushed.keys() == {name}
    # Where every other candidate would take the general graph, all do.
    assert not prepared.encoder(GENERAL).encode(RankRequest(3, [105]), pushed=Pushed("price")).rows_of


def test_experts_are_told_of_all_candidates_where_some_stand_apart(folder: Path, prepared: PreparedEngine) -> None:
    encoded = prepared.encoder(GENERAL).encode(REQUEST, pushed=Pushed("price"))
    graphs = ModelGraphs(Engine(folder), prepared=prepared)
    scored = graphs.predict(encoded, lambda: encoded.inputs, SCORE, experts=True, stage="")
    few = graphs.predict(encoded, lambda: encoded.inputs, SCORE, experts=False, stage="")
    np.testing.assert_allclose(scored.predictions["rating"], few.predictions["rating"], atol=1e-5)
    assert scored.use is not None


@pytest.mark.parametrize(("form", "most", "size"), [("fp16", 2e-3, 32), ("int8", 3e-2, 20)])
def test_rounded_rows_answer_nearly_alike_and_are_smaller(
    form: RowForm, most: float, size: int, prepared: PreparedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepared.shares is not None
    exact = prepared.shares.tables
    rounded = ShareTables({name: ShareRows.stored(rows.values, form) for name, rows in exact.items()})
    encoded = PreparedEncoder(GENERAL, prepared.names, exact).encode(REQUEST)
    right = prepared.predict(encoded)["rating"]
    monkeypatch.setattr(prepared, "shares", rounded)
    off = prepared.predict(encoded)["rating"] - right
    assert 0 < np.abs(off).max() < most
    assert {rows.bytes_a_row for rows in rounded.tables.values()} == {size}
    assert {rows.bytes_a_row for rows in exact.values()} == {64}


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
def test_sums_are_the_same_with_and_without_a_compiler(form: RowForm) -> None:
    rows = np.array([[1.5, -2.25, 0.0, 6e-8, -1e-5, 65504.0], [0.0] * 6, [3.0, 1.0, -1.0, 0.1, 0.2, -0.3]], np.float32)
    tables = {"item": ShareRows.stored(rows, form), "user": ShareRows.stored(rows[::-1], form)}
    asked = {"item": np.array([0, 1, 2, 0]), "user": np.array([2])}
    compiled = ShareTables(tables).sum(asked, 4).copy()
    with without_compiler():
        np.testing.assert_array_equal(ShareTables(tables).sum(asked, 4), compiled)
    np.testing.assert_array_equal(compiled, tables["item"].whole()[[0, 1, 2, 0]] + tables["user"].whole()[2])


def test_rows_come_back_from_files_as_they_were_written(tmp_path: Path) -> None:
    tables = {"item": ShareRows.stored(RNG.normal(size=(5, 8)).astype(np.float32), "int8")}
    ShareTables(tables).save(tmp_path / "shares")
    found = ShareTables.open(tmp_path / "shares", ["item"]).tables["item"]
    np.testing.assert_array_equal(found.whole(), tables["item"].whole())


def test_a_golden_request_goes_through_look_ups_rows_and_their_sum(prepared: PreparedEngine) -> None:
    encoder = prepared.encoder(GENERAL)
    encoded = encoder.encode(REQUEST)
    case = GoldenCase(encoder.whole(encoded), prepared.predict(encoded))
    prepared.check_raw("raw", case, encoded)
    other = encoder.encode(RankRequest(4, REQUEST.items))
    with pytest.raises(PredictionError, match="golden request raw"):
        prepared.check_raw("raw", case, other)
    with pytest.raises(PredictionError, match="general graph"):
        prepared.check_raw("raw", case, GENERAL.encode(REQUEST))


def test_a_swap_takes_tables_and_their_prepared_rows_together(folder: Path, ranker: Ranker, tmp_path: Path) -> None:
    facts = {"schema_fingerprint": SCHEMA.fingerprint(), "tasks": [task.name for task in SCHEMA.tasks]}
    worlds = [TABLES, tables()]

    def publish_night(number: int) -> None:
        work = tmp_path / f"night{number}"
        work.mkdir()
        files = {name: folder / name for name in ("model.onnx", "prepared.onnx", "schema.json")}
        VOCABULARIES.save(work)
        worlds[number].save(work / "online")
        save(shares_of(ranker, worlds[number]), work / "shares")
        files |= {path.relative_to(work).as_posix(): path for path in work.rglob("*") if path.is_file()}
        publish(tmp_path / "store", "sums", files, facts)

    publish_night(0)
    registry, rated = Registry(tmp_path / "store"), []
    first = registry.get()
    for number in range(2):
        if number:
            publish_night(number)
            assert registry.refresh()
        model = registry.get()
        assert model.encode(REQUEST).rows_of
        general = RequestEncoder(SCHEMA, Encoder(SCHEMA, VOCABULARIES), worlds[number]).encode(REQUEST).inputs
        rated.append(model.rank(REQUEST).predictions["rating"])
        np.testing.assert_allclose(rated[number], Engine(folder).predict(general)["rating"], atol=1e-5)
    assert np.abs(rated[0] - rated[1]).max() > 1e-3
    # Whoever still holds the old version has its rows.
    np.testing.assert_array_equal(first.rank(REQUEST).predictions["rating"], rated[0])
