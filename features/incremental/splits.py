"""Which rows train, validate and test."""

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import TIME
from contract.durations import milliseconds
from contract.hashing import Hashes, combine, hash_array
from features.feature_config import FeaturesConfig
from features.source.expressions import compile_condition
from features.source.query_engine import Backend, scalar
from features.source.row_types import EVENT, KIND, ROW
from features.split_config import SplitByExpression, SplitByHash, SplitByTime, SplitByUser

TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "valid", "test")
SPLIT = "__split"
LEFT_OUT = 9
"""The split of rows in an embargo, which go nowhere."""


def with_split(connection: Backend, rows: ir.Table, config: FeaturesConfig, last_ms: int) -> ir.Table:
    """The rows with their split as int8, the embargo applied; a random split is drawn later, from hashes.

    `last_ms` is the time of the log's last event.
    """
    rows = rows.mutate(**{SPLIT: _split(rows, config, last_ms)})
    embargo = None if isinstance(config.split, SplitByHash) else config.split.embargo
    if embargo is None:
        return rows
    gap = milliseconds(embargo)
    if isinstance(config.split, SplitByUser):
        begins = [_first(rows, split, config.events.user) for split in (VALID, TEST)]
    else:
        begins = [scalar(connection, rows.filter(rows[SPLIT] == split)[TIME].min()) for split in (VALID, TEST)]
    return rows.mutate(**{SPLIT: _embargo(rows, begins, gap)})


def train_before(config: FeaturesConfig, last_ms: int) -> int | None:
    """The moment before which all rows train, where that can be told without them."""
    split = config.split
    if not isinstance(split, SplitByTime):
        return None
    held_out = sum(milliseconds(part) for part in (split.valid, split.test, split.embargo) if part)
    return last_ms - held_out


def _first(rows: ir.Table, split: int, user: str | None) -> ir.Value:
    """The time of the user's first row in a split; null without one."""
    whole = ibis.window(group_by=user) if user else ibis.window()
    return ibis.ifelse(rows[SPLIT] == split, rows[TIME], ibis.null("int64")).min().over(whole)


def _embargo(rows: ir.Table, begins: list[ir.Value | int | None], gap: int) -> ir.Value:
    """Leave out training rows less than `gap` before validation or test, and validation rows before test."""
    left_out = ibis.literal(False)  # noqa: FBT003
    for split, begin in ((VALID, begins[0]), (TEST, begins[1])):
        if begin is not None:
            near = ((rows[TIME] > begin - gap) & (rows[SPLIT] < split)).fill_null(False)  # noqa: FBT003
            left_out = left_out | near
    return ibis.ifelse(left_out, LEFT_OUT, rows[SPLIT]).cast("int8")


def _split(table: ir.Table, config: FeaturesConfig, last_ms: int) -> ir.Value:
    split = config.split
    if isinstance(split, SplitByExpression):
        valid = compile_condition(split.valid, table, "data.split.valid")
        test = compile_condition(split.test, table, "data.split.test") if split.test else ibis.literal(False)  # noqa: FBT003
        return ibis.cases((test, TEST), (valid, VALID), else_=TRAIN).cast("int8")
    if isinstance(split, SplitByTime):
        test_begin = last_ms - (milliseconds(split.test) if split.test else 0)
        valid_begin = test_begin - milliseconds(split.valid)
        return ibis.cases((table[TIME] > test_begin, TEST), (table[TIME] > valid_begin, VALID), else_=TRAIN).cast(
            "int8"
        )
    if isinstance(split, SplitByUser):
        return _by_user(table, split, config)
    return ibis.literal(TRAIN, "int8")


def _by_user(table: ir.Table, split: SplitByUser, config: FeaturesConfig) -> ir.Value:
    """Rows of a user in the order of time, cut at two shares or two numbers of rows from the end.

    A sampled negative goes where the events of its moment go, and then all events of one moment go together.
    """
    user = config.events.user
    group = [] if user is None else [user]
    event = (table[KIND] == EVENT).cast("int64")
    if config.negatives:
        ordered = ibis.range_window(group_by=group, order_by=TIME, preceding=None, following=0)
    else:
        ordered = ibis.window(group_by=group, order_by=[TIME, ROW], preceding=None, following=0)
    total = event.sum().over(ibis.window(group_by=group))
    rank = event.sum().over(ordered)
    counted = split.valid >= 1
    place = rank - total if counted else rank / total
    last = 0 if counted else 1
    return ibis.cases(
        (place > last - split.test, TEST), (place > last - split.test - split.valid, VALID), else_=TRAIN
    ).cast("int8")


def draw_split(user: Hashes, item: Hashes, time: Hashes, split: SplitByHash, seed: int) -> NDArray[np.int8]:
    """A random split [rows] by the hash of user, item and time, so that a row keeps its split in every build."""
    hashes = combine([hash_array(pa.array([seed] * len(time))), time]) ^ user ^ (item << np.uint64(1))
    place = combine([hashes | np.uint64(1), hashes | np.uint64(1)]) / np.float64(2**64)
    drawn = np.full(len(time), TRAIN, dtype=np.int8)
    drawn[place < split.valid + split.test] = VALID
    drawn[place < split.test] = TEST
    return drawn
