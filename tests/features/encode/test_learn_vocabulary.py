"""Vocabularies that grow: what was known keeps its row, what is new is known from when it was seen often enough."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.dataset import EncodedDataset
from features.encode.vocabulary import ALWAYS, Vocabularies
from tests.features.incremental.test_increment import FEW, days, made, world
from tests.features.raw_world import raw_tables

FEATURES = {
    **FEW,
    "features": [{"name": "user"}, {"name": "item", "min_count": 3}, {"name": "surface"}],
    "histories": [{"name": "last", "of": "item", "by": "user", "last": 3, "shares": "item"}],
    "split": {"by": "time", "valid": "1d"},
    "grow": True,
}


def newcomers() -> dict[str, pa.Table]:
    """The raw world in which items from 30 on are seen from the fourth day on."""
    tables = raw_tables(rows=1500)
    early, rare = pc.less(tables["events"]["day"], 3), pc.greater_equal(tables["events"]["item"], 30)
    return {**tables, "events": tables["events"].filter(pc.invert(pc.and_(early, rare)))}


def test_a_grown_vocabulary_leaves_the_rows_of_days_before_as_they_were(tmp_path: Path) -> None:
    tables = newcomers()
    for name in ("grown", "whole"):
        world(tmp_path / name, days(tables, 4), **FEATURES)
    pieces = {p.name: p.stat().st_ino for p in (tmp_path / "grown" / "features-days" / "encoded").glob("*.train.*")}
    world(tmp_path / "grown", days(tables, 5), **FEATURES)
    now = {p.name: p.stat().st_ino for p in (tmp_path / "grown" / "features-days" / "encoded").glob("*.train.*")}
    assert len(pieces) == 3, "the fourth day validates"
    assert len(now) == 4
    assert pieces.items() <= now.items()
    for path in sorted((tmp_path / "whole" / "features-days").rglob("*.parquet")):
        path.unlink()
    assert world(tmp_path / "whole", days(tables, 5), **FEATURES).days_reused == 0
    grown, whole = (made(tmp_path / name) for name in ("grown", "whole"))
    assert {name for name in grown if grown[name] != whole.get(name)} == {
        "train/_manifest.json",
        *(f"train/part-{number:05d}.parquet" for number in range(3)),
    }
    grown_rows, whole_rows = (
        EncodedDataset.open(tmp_path / name / "features" / "train") for name in ("grown", "whole")
    )
    assert grown_rows.read(grown_rows.column_names).equals(whole_rows.read(grown_rows.column_names))
    assert grown_rows.encoded_with == whole_rows.encoded_with


def test_new_ids_are_known_from_the_day_on_which_they_were_seen_often_enough(tmp_path: Path) -> None:
    tables = newcomers()
    world(tmp_path, days(tables, 3), **FEATURES)
    world(tmp_path, tables, **FEATURES)
    stored = pq.read_table(tmp_path / "features" / "vocabulary.parquet")
    items = stored.filter(pc.equal(stored["table"], "item")).to_pylist()
    grown = {int(word["value"]): word["since"] for word in items if word["since"] != ALWAYS}
    assert 5 < len(grown) <= len(set(grown) | set(range(30, 40))) == 10
    first = 19_783  # 1 March 2024, in days since 1970
    events = tables["events"]
    encoded = pq.read_table(tmp_path / "features" / "train")
    rows = {int(word["value"]): row + 1 for row, word in enumerate(items)}
    for item, since in grown.items():
        seen = events.filter(pc.equal(events["item"], item))["day"].to_pylist()
        assert sum(day <= since - first for day in seen) >= 3 > sum(day < since - first for day in seen)
        known = encoded.filter(pc.equal(encoded["item"], rows[item]))["__time"].to_numpy() // 86_400_000
        assert len(known)
        assert known.min() >= since


def test_ids_that_were_not_seen_for_so_many_days_leave(tmp_path: Path) -> None:
    tables = raw_tables(rows=1500)
    late, old = pc.greater_equal(tables["events"]["day"], 1), pc.less(tables["events"]["item"], 10)
    tables = {**tables, "events": tables["events"].filter(pc.invert(pc.and_(late, old)))}
    items = {}
    for name, unseen_days in {"all": None, "lately": 2}.items():
        feature = {"name": "item", "unseen_days": unseen_days}
        recipe = {**FEATURES, "features": [{"name": "user"}, feature, {"name": "surface"}], "grow": False}
        world(tmp_path / name, tables, **recipe)
        stored = pq.read_table(tmp_path / name / "features" / "vocabulary.parquet").to_pylist()
        items[name] = {int(row["value"]) for row in stored if row["table"] == "item"}
    assert items["all"] & set(range(10))
    assert items["lately"] == {item for item in items["all"] if item >= 10}


def test_what_was_known_on_a_day_has_a_digest_that_later_ids_do_not_change() -> None:
    values, since = pa.array(["a", "b", None, "c"]), pa.array([ALWAYS, ALWAYS, 5, 7], pa.int32()).to_numpy()
    before = Vocabularies({"t": values[:3]}, {"t": since[:3]})
    after = Vocabularies({"t": values}, {"t": since})
    assert before.digests([4, 6]) == after.digests([4, 6])
    assert before.digests([8]) != after.digests([8])
    assert after.as_of(6).values("t").to_pylist() == ["a", "b", None, None]
    assert after.as_of(7) is after
