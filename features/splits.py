"""Which rows train, validate and test."""

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.config import FeaturesConfig, SplitByExpression, SplitByHash, SplitByUser
from features.expressions import compile_expression
from features.hashing import combine, hash_array
from features.timeline import EVENT, KIND, ROW, TIME

TRAIN, VALID, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "valid", "test")
SPLIT = "__split"


def split_column(table: ir.Table, config: FeaturesConfig) -> ir.Value:
    """The split of each event as an int8 expression; a random split is drawn later, from hashes (`draw_split`)."""
    split = config.split
    if isinstance(split, SplitByExpression):
        valid = compile_expression(split.valid, table, "data.split.valid")
        test = compile_expression(split.test, table, "data.split.test") if split.test else ibis.literal(False)  # noqa: FBT003
        return ibis.cases((test, TEST), (valid, VALID), else_=TRAIN).cast("int8")
    if isinstance(split, SplitByUser):
        return _by_user(table, split, config.events.user)
    return ibis.literal(TRAIN, "int8")


def _by_user(table: ir.Table, split: SplitByUser, user: str | None) -> ir.Value:
    """Rows of a user in the order of time, cut at the two fractions."""
    group = [KIND] if user is None else [KIND, user]
    ordered = ibis.window(group_by=group, order_by=[TIME, ROW])
    whole = ibis.window(group_by=group)
    rank = (ibis.row_number().over(ordered) + 1) / table.count().over(whole)
    return ibis.cases(
        (table[KIND] != EVENT, TRAIN), (rank > 1 - split.test, TEST), (rank > 1 - split.test - split.valid, VALID),
        else_=TRAIN,
    ).cast("int8")  # fmt: skip


def draw_split(batch: pa.RecordBatch, split: SplitByHash, seed: int) -> NDArray[np.int8]:
    """A random split [rows] by the hash of user, item and time, so that a row keeps its split in every build."""
    hashes = combine([hash_array(pa.array([seed] * len(batch))), hash_array(batch.column("__time"))])
    hashes = hashes ^ batch.column("__user").to_numpy() ^ (batch.column("__item").to_numpy() << np.uint64(1))
    place = combine([hashes | np.uint64(1), hashes | np.uint64(1)]) / np.float64(2**64)
    drawn = np.full(len(batch), TRAIN, dtype=np.int8)
    drawn[place < split.valid + split.test] = VALID
    drawn[place < split.test] = TEST
    return drawn
