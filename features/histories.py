"""Last-N lists from strictly earlier events of the same key.

No list is built in the engine. The events that lists hold are put in the order of key and time once, as one column of
values; a row's list is the stretch of it that ends where the row's own moment begins, so a row carries two whole
numbers. That end is a count that ends one millisecond before the row, so events at the same moment never see each
other. A longer gap ends the count earlier. `History.lists` cuts the lists as rows leave the engine.
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.aggregates import State
from features.config import FeaturesConfig, HistoryConfig
from features.durations import milliseconds
from features.earlier import Earlier, last_events
from features.engine import Backend, materialise, to_arrow
from features.expressions import compile_expression
from features.kinds import KIND, ORDER, PAST, ROW, TIME
from features.timeline import Timeline

_KEY, _COUNTS, _BEFORE, _START, _TOTAL, _FAR = "__key", "__counts", "__before", "__start", "__total", "__far"


@dataclass(frozen=True)
class History:
    """By row number where its lists end and how long they are (`state`), and the `values` [events] of each list.

    The values lie in memory, 8 bytes an event and list (texts by their numbers, and each distinct text once).
    """

    state: State
    values: dict[str, pa.Array]

    def lists(self, rows: pa.Table | pa.RecordBatch) -> dict[str, pa.Array]:
        """The lists [rows] by name, from the state's two columns; a history of nothing is null."""
        ends, lengths = (pc.fill_null(rows[c], 0).to_numpy(zero_copy_only=False) for c in self.state.columns)
        upto = np.cumsum(lengths)
        places = pa.array(np.repeat(ends - upto, lengths) + np.arange(int(lengths.sum())))
        offsets, none = pa.array(np.append(0, upto).astype(np.int32)), pa.array(lengths == 0)
        cut = {name: values.take(places) for name, values in self.values.items()}
        plain = {n: v.dictionary_decode() if pa.types.is_dictionary(v.type) else v for n, v in cut.items()}
        return {name: pa.ListArray.from_arrays(offsets, values, mask=none) for name, values in plain.items()}


def history_states(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[History]:
    """The histories of a recipe, run over the timeline."""
    histories = []
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}]"
        for column in (history.of, history.by, *history.columns.values()):
            timeline.ownership.side(column, where)
        flagged = flagged_events(timeline.table, history, where)
        if timeline.earlier is not None:
            before = _last_events(connection, timeline.earlier, history, place)
            flagged = ibis.union(flagged, before.cast(dict(flagged.schema())).select(flagged.columns))
        table = materialise(connection, f"history_{place}", ends_before(flagged, history, timeline.earlier))
        names = (history.name, *history.columns)
        state = State(table, (ROW,), _state_columns(history), names)
        histories.append(History(state, _values(connection, flagged, history)))
    return histories


def _last_events(connection: Backend, earlier: Earlier, history: HistoryConfig, place: int) -> ir.Table:
    """What the lists of later rows can hold of earlier days."""
    seen_from = _seen_from(earlier, history)
    return earlier.fold(
        connection,
        f"history_{place}",
        lambda table: flagged_events(table, history, f"data.histories[{place}]"),
        lambda flagged: last_events(flagged, _KEY, _COUNTS, history.last, seen_from),
    )


def _state_columns(history: HistoryConfig) -> tuple[str, str]:
    return f"{history.name}/end", f"{history.name}/length"


def flagged_events(table: ir.Table, history: HistoryConfig, where: str) -> ir.Table:
    """Key, time, the values under the lists' names, and whether the row is an event that the lists hold."""
    counts = (table[KIND] <= PAST) & table[history.of].notnull()
    if history.where:
        counts = counts & compile_expression(history.where, table, f"{where}.where").fill_null(False)  # noqa: FBT003
    values = {name: table[of] for name, of in {history.name: history.of, **history.columns}.items()}
    flagged = table.select(TIME, ORDER, ROW, **{_KEY: table[history.by], _COUNTS: counts.cast("int64"), **values})
    return flagged.filter(flagged[_KEY].notnull())


def ends_before(flagged: ir.Table, history: HistoryConfig, earlier: Earlier | None) -> ir.Table:
    """By row number, where its lists end among the events in the order of key and time, and how long they are.

    Events of earlier days that every later row may see are counted by key, and no window runs over them.
    """
    end, length = _state_columns(history)
    built, seen_from = (earlier.rows, _seen_from(earlier, history)) if earlier else (0, 0)
    far = (flagged[ROW] < built) & (flagged[TIME] < seen_from)
    near = flagged.filter(~far)
    numbered = near.select(_KEY, ROW, **{_BEFORE: _earlier(near, history).cast("int64")})
    joined = numbered.filter(numbered[ROW] >= built).inner_join(_starts(flagged, far), _KEY)
    before = joined[_FAR] + joined[_BEFORE]
    least = ibis.least(before, ibis.literal(history.last, "int64"))
    return joined.select(ROW, **{end: joined[_START] + before, length: least})


def _seen_from(earlier: Earlier, history: HistoryConfig) -> int:
    """The moment before which all rows that are not built yet see the events of earlier days."""
    return earlier.until_ms - _gap_ms(history) + 1


def _gap_ms(history: HistoryConfig) -> int:
    return milliseconds(history.gap) if history.gap else 1


def _earlier(flagged: ir.Table, history: HistoryConfig) -> ir.Value:
    """How many of the key's events the row may see."""
    counts = flagged[_COUNTS]
    if history.gap:
        far = ibis.range_window(group_by=_KEY, order_by=TIME, preceding=(None, _gap_ms(history)))
        return counts.sum().over(far).fill_null(0)
    # A frame that ends at the row's moment needs no search for its end, which halves the time of this step.
    upto = ibis.range_window(group_by=_KEY, order_by=TIME, preceding=None, following=0)
    moment = ibis.range_window(group_by=_KEY, order_by=TIME, preceding=0, following=0)
    return counts.sum().over(upto) - counts.sum().over(moment)


def _starts(flagged: ir.Table, far: ir.BooleanValue) -> ir.Table:
    """By key, how many events the keys before it have, and how many far ones it has itself."""
    counts = flagged[_COUNTS]
    sums = {_TOTAL: counts.sum(), _FAR: counts.sum(where=far).fill_null(0).cast("int64")}
    totals = flagged.group_by(_KEY).aggregate(**sums)
    before = ibis.window(order_by=_KEY, preceding=(None, 1))
    return totals.select(_KEY, _FAR, **{_START: totals[_TOTAL].sum().over(before).fill_null(0).cast("int64")})


def _values(connection: Backend, flagged: ir.Table, history: HistoryConfig) -> dict[str, pa.Array]:
    """The events' values in the order of key and time."""
    events = flagged.filter(flagged[_COUNTS] == 1).order_by([_KEY, TIME, ORDER, ROW])
    table = to_arrow(connection, events.select(history.name, *history.columns))
    return {name: _compact(table[name]) for name in table.column_names}


def _compact(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.dictionary_encode().unify_dictionaries()
    return column.combine_chunks()
