"""Last-N lists from strictly earlier events of the same key.

Each event's list ending with itself is a bounded ROWS window; a row then takes the list of the event whose number
among its key's events is the count of events before the row. That count ends one millisecond before the row, so
events at the same moment never see each other, and the join is an equi-join. A longer gap ends the count earlier.
"""

import ibis
import ibis.expr.types as ir

from features.aggregates import State
from features.config import FeaturesConfig, HistoryConfig
from features.durations import milliseconds
from features.engine import Backend, materialise
from features.expressions import compile_expression
from features.kinds import KIND, ORDER, PAST, ROW, TIME
from features.timeline import Timeline

_KEY, _COUNTS, _PLACE, _BEFORE = "__key", "__counts", "__place", "__before"


def history_states(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[State]:
    """One materialised state a history: by row number its lists; a row without earlier events is absent."""
    states = []
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}]"
        for column in (history.of, history.by, *history.columns.values()):
            timeline.ownership.side(column, where)
        flagged = flagged_events(timeline.table, history, where)
        table = materialise(connection, f"history_{place}", lists_before(flagged, history))
        names = (history.name, *history.columns)
        states.append(State(table, (ROW,), names, names))
    return states


def flagged_events(table: ir.Table, history: HistoryConfig, where: str) -> ir.Table:
    """Key, time, the values under the lists' names, and whether the row is an event that the lists hold."""
    counts = (table[KIND] <= PAST) & table[history.of].notnull()
    if history.where:
        counts = counts & compile_expression(history.where, table, f"{where}.where").fill_null(False)  # noqa: FBT003
    values = {name: table[of] for name, of in {history.name: history.of, **history.columns}.items()}
    flagged = table.select(TIME, ORDER, ROW, **{_KEY: table[history.by], _COUNTS: counts.cast("int64"), **values})
    return flagged.filter(flagged[_KEY].notnull())


def lists_before(flagged: ir.Table, history: HistoryConfig) -> ir.Table:
    """By row number, the lists that end before the row."""
    gap = milliseconds(history.gap) if history.gap else 1
    earlier = ibis.range_window(group_by=_KEY, order_by=TIME, preceding=(None, gap))
    numbered = flagged.select(_KEY, ROW, **{_BEFORE: flagged[_COUNTS].sum().over(earlier).cast("int64")})
    joined = numbered.inner_join(_lists(flagged, history), [_KEY, (_BEFORE, _PLACE)])
    return joined.select(ROW, history.name, *history.columns)


def _lists(flagged: ir.Table, history: HistoryConfig) -> ir.Table:
    """By key and place (1, 2, ..) of an event among its key's events, the last N values ending with it."""
    events = flagged.filter(flagged[_COUNTS] == 1)
    order = [events[TIME], events[ORDER], events[ROW]]
    window = ibis.window(group_by=_KEY, order_by=order, preceding=history.last - 1, following=0)
    numbers = ibis.window(group_by=_KEY, order_by=order)
    # Collecting drops nulls, which would shift a side column against the others; a list of one is no null.
    sides = {name: ibis.array([events[name]]).collect().over(window).flatten() for name in history.columns}
    return events.select(
        _KEY,
        **{
            _PLACE: (ibis.row_number().over(numbers) + 1).cast("int64"),
            history.name: events[history.name].collect().over(window),
            **sides,
        },
    )
