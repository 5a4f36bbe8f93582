"""The feature benchmark compares like with like: SQL, polars and the build give the same rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.feature_rivals import build_with_sql
from benchmarks.feature_world import recipe, write_events
from features.build import build
from tests.features.raw_world import quiet


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which no user has two events at one moment, of which the rivals let one see the other."""
    path = tmp_path_factory.mktemp("jobs") / "events.parquet"
    write_events(path, 20_000)
    events = pq.read_table(path)
    numbered = events.append_column("place", pa.array(np.arange(len(events))))
    first = numbered.group_by(["user", "at"]).aggregate([("place", "min")])["place_min"]
    pq.write_table(events.take(pa.array(np.sort(first.to_numpy()))), path, write_page_checksum=True)
    return path


@pytest.mark.parametrize("rival", ["sql", "polars"])
def test_the_rivals_rows_are_the_builds(log: Path, tmp_path: Path, rival: str) -> None:
    build(recipe(log), tmp_path / "ours", quiet)
    if rival == "sql":
        build_with_sql(log, tmp_path / "theirs")
    else:
        pytest.importorskip("polars", reason="polars is not installed")
        from benchmarks.feature_polars import build_with_polars  # noqa: PLC0415 - imports polars

        build_with_polars(log, tmp_path / "theirs")
    for split in ("train", "valid"):
        files = (tmp_path / "ours" / split, tmp_path / "theirs" / f"{split}.parquet")
        ours, theirs = (_in_order(pq.read_table(file)) for file in files)
        assert len(ours) == len(theirs) > 100
        assert set(ours.column_names) == set(theirs.column_names)
        for name in ours.column_names:
            one, other = ours[name].combine_chunks(), theirs[name].combine_chunks()
            if pa.types.is_floating(one.type):
                assert np.allclose(one.to_numpy(), other.to_numpy(), atol=1e-5), name
            elif not name.startswith(("__user", "__item")):
                assert [v or [] for v in one.to_pylist()] == [v or [] for v in other.to_pylist()], name


def _in_order(rows: pa.Table) -> pa.Table:
    """By time, then by encoded keys: the same row in the same place whoever shuffled them."""
    return rows.sort_by([("__time", "ascending"), ("user", "ascending"), ("item", "ascending")])
