"""Last-N lists from strictly earlier events of the same key.

No list is built in the engine, and no window runs. Rows leave it once, in the order of key and time, and are walked a
batch at a time: the events that lists hold are kept as one column of values, and a row's list is the stretch of it that
ends where the row's own moment begins, two whole numbers. Events at the same moment so never see each other. With a
longer gap a row asks as if it stood that much earlier.
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.columns import TIME
from contract.durations import milliseconds
from features.feature_config import FeaturesConfig, HistoryConfig
from features.point_in_time.carry_over import CarryOver, last_events
from features.point_in_time.ragged import RaggedSlices, plain
from features.point_in_time.timeline import Timeline
from features.source.expressions import compile_condition
from features.source.query_engine import Backend, record_batches, scalar
from features.source.row_types import KIND, ORDER, PAST, ROW

WALKED_ROWS = 262_144
"""Rows that are walked at a time."""
_KEY, _COUNTS, _AT, _ASKS = "__key", "__counts", "__at", "__asks"
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """Lists of all rows: by row number from `first` on the `rows`' stretches of the `values`.

    The values [events] lie in memory, 8 bytes per event and list (texts by their numbers, and each distinct text once),
    beside 12 bytes per row.
    """

    values: dict[str, pa.Array]
    first: int
    rows: RaggedSlices

    def slices(self, rows: Counts) -> RaggedSlices:
        """The stretches of some row numbers."""
        return RaggedSlices(self.rows.ends[rows - self.first], self.rows.lengths[rows - self.first])

    def lists(self, rows: Counts) -> dict[str, pa.Array]:
        """The lists by name of some row numbers; a history of nothing is null."""
        slices = self.slices(rows)
        return {name: slices.gather(values) for name, values in self.values.items()}

    def within(self, first: int, end: int) -> "History":
        """The lists of the row numbers in between; of values that outnumber them, with those that they hold alone."""
        span = slice(first - self.first, end - self.first)
        rows = RaggedSlices(self.rows.ends[span], self.rows.lengths[span])
        if all(len(values) <= end - first for values in self.values.values()):
            return History(self.values, first, rows)
        used, rows = rows.compact()
        return History({name: values.take(pa.array(used)) for name, values in self.values.items()}, first, rows)

    def plain_values(self) -> dict[str, pa.Array]:
        """The values, texts as they are."""
        return {name: plain(values) for name, values in self.values.items()}


def find_histories(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[History]:
    """The histories of a recipe, run over the timeline."""
    first = timeline.carry_over.rows if timeline.carry_over else 0
    rows = int(scalar(connection, timeline.table.count())) if config.histories else 0
    histories = []
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}]"
        for column in (history.of, history.by, *history.columns.values()):
            timeline.ownership.side(column, where)
        flagged = flagged_events(timeline.table, history, where)
        if timeline.carry_over is not None:
            before = _last_events(connection, timeline.carry_over, history, place)
            flagged = ibis.union(flagged, before.cast(dict(flagged.schema())).select(flagged.columns))
        ordered = in_order(flagged, history)
        types = {name: ordered[name].type().to_pyarrow() for name in history.lists}
        walk = _Walk(types, history.last, first, rows)
        for batch in record_batches(connection, ordered, WALKED_ROWS):
            walk.over(batch)
        histories.append(walk.history())
    return histories


def _last_events(connection: Backend, carry_over: CarryOver, history: HistoryConfig, place: int) -> ir.Table:
    """What the lists of later rows can hold of earlier days."""
    # From this moment on, not all rows that are not built yet see an event.
    seen_from = carry_over.until_ms - _gap_ms(history) + 1
    return carry_over.merge(
        connection,
        f"history_{place}",
        lambda table: flagged_events(table, history, f"data.histories[{place}]"),
        lambda flagged: last_events(flagged, _KEY, _COUNTS, history.last, seen_from),
    )


def _as_id(value: ir.Value) -> ir.Value:
    """A condition as the whole number that it is as an id."""
    return value.cast("int8") if value.type().is_boolean() else value


def flagged_events(table: ir.Table, history: HistoryConfig, where: str) -> ir.Table:
    """Key, time, the values under the lists' names, and whether the row is an event that the lists hold."""
    counts = (table[KIND] <= PAST) & table[history.of].notnull()
    if history.where:
        counts = counts & compile_condition(history.where, table, f"{where}.where")
    values = {name: _as_id(table[of]) for name, of in {history.name: history.of, **history.columns}.items()}
    if history.elapsed is not None:
        values[history.elapsed] = table[TIME]
    flagged = table.select(TIME, ORDER, ROW, **{_KEY: table[history.by], _COUNTS: counts.cast("int64"), **values})
    return flagged.filter(flagged[_KEY].notnull())


def in_order(flagged: ir.Table, history: HistoryConfig) -> ir.Table:
    """Events and the rows that ask for lists, in the order of key and moment; what happened before it, a row sees."""
    gap = _gap_ms(history)
    if gap == 1:
        dated = flagged.mutate(**{_AT: flagged[TIME], _ASKS: flagged[ROW]})
    else:
        events = flagged.filter(flagged[_COUNTS] == 1)
        events = events.mutate(**{_AT: events[TIME], _ASKS: ibis.literal(-1, "int64")})
        asking = flagged.mutate(**{_AT: flagged[TIME] - (gap - 1), _ASKS: flagged[ROW]})
        dated = ibis.union(events, asking.mutate(**{_COUNTS: ibis.literal(0, "int64")}).select(events.columns))
    return dated.order_by([_KEY, _AT, ORDER, ROW]).drop(TIME, ORDER, ROW)


def _gap_ms(history: HistoryConfig) -> int:
    return milliseconds(history.gap) if history.gap else 1


class _Walk:
    """Walks rows in the order of key and moment, and keeps what makes a history."""

    def __init__(self, types: dict[str, pa.DataType], last: int, first: int, rows: int) -> None:
        self._last, self._first = last, first
        self._ends, self._lengths = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int32)
        # A part of nothing tells the type where no row has a key.
        self._values = {name: [pa.array([], kind)] for name, kind in types.items()}
        self._events = 0
        self._before: pa.RecordBatch | None = None
        self._key_began = self._moment_began = 0

    def over(self, batch: pa.RecordBatch) -> None:
        """Go on over more rows."""
        if not len(batch):
            return
        counts, asks = batch[_COUNTS].to_numpy(), batch[_ASKS].to_numpy()
        upto = self._events + np.cumsum(counts)
        new_key = self._changes(batch, _KEY)
        key_began = _latest(new_key, upto - counts, self._key_began)
        ends = _latest(new_key | self._changes(batch, _AT), upto - counts, self._moment_began)
        asking = np.flatnonzero(asks >= self._first)
        indices = asks[asking] - self._first
        self._ends[indices] = ends[asking]
        self._lengths[indices] = np.minimum(ends - key_began, self._last)[asking]
        events = pa.array(counts == 1)
        for name, parts in self._values.items():
            parts.append(batch[name].filter(events))
        self._events, self._key_began, self._moment_began = int(upto[-1]), int(key_began[-1]), int(ends[-1])
        self._before = batch.slice(len(batch) - 1)

    def history(self) -> History:
        """What was found in all rows."""
        values = {name: _compact(parts) for name, parts in self._values.items()}
        return History(values, self._first, RaggedSlices(self._ends, self._lengths))

    def _changes(self, batch: pa.RecordBatch, column: str) -> NDArray[np.bool_]:
        """Whether each row's value is another than that of the row before."""
        values = batch[column]
        inside = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)).to_numpy(zero_copy_only=False)
        begins = self._before is None or self._before[column][0] != values[0]
        return np.append(begins, inside)


def _latest(marks: NDArray[np.bool_], values: Counts, before: int) -> Counts:
    """At each row the value of the last marked row up to it; `before` where there is none."""
    indices = np.maximum.accumulate(np.where(marks, np.arange(1, len(marks) + 1), 0))
    return np.append(before, values)[indices]


def _compact(parts: list[pa.Array]) -> pa.Array:
    column = pa.chunked_array(parts)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.dictionary_encode().unify_dictionaries()
    return column.combine_chunks()
