"""Last-N lists from strictly earlier events of the same key.

Each event's list ending with itself is a bounded ROWS window; a row then takes the list of the event whose number
among its key's events is the count of events before the row. That count ends one millisecond before the row, so
events at the same moment never see each other, and the join is an equi-join.
"""

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features.aggregates import State
from features.config import FeaturesConfig, HistoryConfig
from features.expressions import compile_expression
from features.timeline import KIND, ORDER, PAST, ROW, TIME, Timeline

_OF, _COUNTS, _PLACE = "__of", "__counts", "__place"
_BEFORE = "__before"


def history_states(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[State]:
    """One materialised state a history: by row number its list; a row without earlier events is absent."""
    states = []
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}]"
        for column in (history.of, history.by):
            timeline.ownership.side(column, where)
        table = connection.create_table(f"history_{place}", _state(timeline.table, history, where), temp=True)
        states.append(State(table, (ROW,), (history.name,), (history.name,)))
    return states


def _state(table: ir.Table, history: HistoryConfig, where: str) -> ir.Table:
    counts = (table[KIND] <= PAST) & table[history.of].notnull()
    if history.where:
        counts = counts & compile_expression(history.where, table, f"{where}.where").fill_null(False)  # noqa: FBT003
    flagged = table.select(history.by, TIME, ORDER, ROW, **{_OF: table[history.of], _COUNTS: counts.cast("int64")})
    flagged = flagged.filter(flagged[history.by].notnull())
    earlier = ibis.range_window(group_by=history.by, order_by=TIME, preceding=(None, 1))
    numbered = flagged.select(history.by, ROW, **{_BEFORE: flagged[_COUNTS].sum().over(earlier).cast("int64")})
    joined = numbered.inner_join(_lists(flagged, history), [history.by, (_BEFORE, _PLACE)])
    return joined.select(ROW, history.name)


def _lists(flagged: ir.Table, history: HistoryConfig) -> ir.Table:
    """By key and place (1, 2, ..) of an event among its key's events, the last N values ending with it."""
    events = flagged.filter(flagged[_COUNTS] == 1)
    order = [events[TIME], events[ORDER], events[ROW]]
    window = ibis.window(group_by=history.by, order_by=order, preceding=history.last - 1, following=0)
    numbers = ibis.window(group_by=history.by, order_by=order)
    return events.select(
        history.by,
        **{
            _PLACE: (ibis.row_number().over(numbers) + 1).cast("int64"),
            history.name: events[_OF].collect().over(window),
        },
    )
