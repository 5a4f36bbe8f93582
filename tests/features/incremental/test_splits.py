"""Where a split begins to the millisecond, and what a random split is drawn by."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.columns import TIME
from features.incremental.splits import SPLIT, TEST, TRAIN, VALID, draw_split, with_split
from features.source.query_engine import connect, to_arrow
from features.split_config import SplitByHash
from tests.features.raw_world import recipe

DAY = 86_400_000


def test_a_row_exactly_at_a_split_s_begin_still_belongs_to_the_one_before(tmp_path: Path) -> None:
    last = 10 * DAY
    times = [last - 2 * DAY, last - 2 * DAY + 1, last - DAY, last - DAY + 1, last]
    config = recipe(tmp_path, split={"by": "time", "valid": "1d", "test": "1d"})
    pq.write_table(pa.table({TIME: times}), tmp_path / "rows.parquet")
    connection = connect("1GB", tmp_path)
    rows = with_split(connection, connection.read_parquet(tmp_path / "rows.parquet"), config, last)
    placed = to_arrow(connection, rows.order_by(TIME))[SPLIT].to_pylist()
    connection.disconnect()
    assert placed == [TRAIN, VALID, VALID, TEST, TEST]


def test_another_seed_draws_another_random_split_of_the_same_shares() -> None:
    user, item, time = (np.arange(start, start + 20_000, dtype=np.uint64) for start in (1, 77, 5))
    split = SplitByHash(by="random", valid=0.2, test=0.1)
    first, again, other = (draw_split(user, item, time, split, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    # Independent draws agree in .7^2 + .2^2 + .1^2 of the rows.
    assert 0.5 < (first == other).mean() < 0.58
    for drawn in (first, other):
        shares = np.bincount(drawn, minlength=3) / drawn.size
        np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.02)
