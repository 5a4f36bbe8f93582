"""Counts of encoded rows: rows, repeats, days, labels; kept beside the rows and taken from there."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.quality.row_counts import count_rows, label_rates, older_than
from features.source.row_types import DAY_MS

Row = tuple[int, int, int, bool]


def write_rows(path: Path, rows: list[Row], group_rows: int = 3) -> Path:
    """Rows of user, item, time, and a label whose weight is 0 for items that are even."""
    user, item, time, label = zip(*rows, strict=True)
    columns = {
        "__user": pa.array(user, pa.uint64()),
        "__item": pa.array(item, pa.uint64()),
        "__time": pa.array(time, pa.int64()),
        "label__like": pa.array(label, pa.float32()),
        "weight__like": pa.array([float(i % 2) for i in item], pa.float32()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=group_rows, write_page_checksum=True)
    return path


ROWS = st.lists(
    st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 6), st.integers(0, 3 * DAY_MS - 1), st.booleans()),
    min_size=1,
    max_size=25,
)


@given(ROWS, ROWS)
def test_pieces_are_counted_as_their_rows_together(
    tmp_path_factory: pytest.TempPathFactory, first: list[Row], second: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    pieces = [write_rows(folder / f"{n}.parquet", rows) for n, rows in enumerate((first, second))]
    counts = count_rows(pieces, folder / "counts.json", ["like"])
    rows = first + second
    # Keys are told apart without their lowest bit, which marks that a key is there.
    keys = [(user | 1, item | 1, time) for user, item, time, _ in rows]
    assert counts.rows == len(rows)
    assert counts.repeats == len(keys) - len(set(keys))
    assert (counts.first_ms, counts.last_ms) == (min(k[2] for k in keys), max(k[2] for k in keys))
    labelled = [(time // DAY_MS, label) for _, item, time, label in rows if item % 2]
    days = {day: [label for other, label in labelled if other == day] for day, _ in labelled}
    assert counts.labels["like"] == {day: (len(labels), float(sum(labels))) for day, labels in days.items()}
    assert label_rates([counts], "like") == {
        str(np.datetime64(day, "D")): round(sum(days[day]) / len(days[day]), 6) for day in sorted(days)
    }


def test_what_was_counted_is_not_counted_again(tmp_path: Path) -> None:
    piece = write_rows(tmp_path / "a.parquet", [(1, 1, 5, True)])
    counts = count_rows([piece], tmp_path / "counts.json", ["like"])
    piece.unlink()
    assert count_rows([piece], tmp_path / "counts.json", ["like"]) == counts


@pytest.mark.parametrize(("moment", "older"), [(0, 0), (5, 0), (6, 1), (90, 2), (91, 3)])
def test_rows_older_than_a_moment_are_counted_only_where_a_partition_spans_it(
    tmp_path: Path, moment: int, older: int
) -> None:
    piece = write_rows(tmp_path / "a.parquet", [(1, 1, 5, True), (1, 1, 20, True), (1, 1, 90, True)])
    counts = count_rows([piece], tmp_path / "counts.json", ["like"])
    assert older_than([piece], counts, moment) == older
