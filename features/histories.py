"""Last-N lists from strictly earlier events of the same key.

Each event's list ending with itself is a bounded ROWS window; a row then takes the list of the event whose number
among its key's events is the count of events before the row. That count ends one millisecond before the row, so
events at the same moment never see each other, and the join is an equi-join.
"""

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features.config import FeaturesConfig, HistoryConfig
from features.expressions import compile_expression
from features.timeline import KIND, ORDER, PAST, ROW, TIME, Timeline

_PLACE = "__place"
_BEFORE = "__before"


def add_histories(connection: Backend, timeline: Timeline, table: ir.Table, config: FeaturesConfig) -> ir.Table:
    """`table` with one list column a history; no earlier event is an empty list, never null."""
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}]"
        for column in (history.of, history.by):
            timeline.ownership.side(column, where)
        added = _add(table, history, where)
        table = connection.create_table(f"history_{place}", added, temp=True)
    return table


def _add(table: ir.Table, history: HistoryConfig, where: str) -> ir.Table:
    counts = (table[KIND] <= PAST) & table[history.by].notnull() & table[history.of].notnull()
    if history.where:
        counts = counts & compile_expression(history.where, table, f"{where}.where").fill_null(False)  # noqa: FBT003
    flagged = table.mutate(__counts=counts.cast("int64"))
    earlier = ibis.range_window(group_by=history.by, order_by=TIME, preceding=(None, 1))
    before = flagged["__counts"].sum().over(earlier).fill_null(0)
    numbered = flagged.mutate(**{_BEFORE: before.cast("int64")})
    joined = numbered.left_join(_lists(flagged, history), [history.by, (_BEFORE, _PLACE)])
    value_type = table[history.of].type()
    empty = ibis.literal([], type=f"array<{value_type}>")
    return joined.mutate(**{history.name: joined[history.name].fill_null(empty)}).select(*table.columns, history.name)


def _lists(flagged: ir.Table, history: HistoryConfig) -> ir.Table:
    """By key and place (1, 2, ..) of an event among its key's events, the last N values ending with it."""
    events = flagged.filter(flagged["__counts"] == 1)
    order = [events[TIME], events[ORDER], events[ROW]]
    window = ibis.window(group_by=history.by, order_by=order, preceding=history.last - 1, following=0)
    numbers = ibis.window(group_by=history.by, order_by=order)
    return events.select(
        history.by,
        **{
            _PLACE: (ibis.row_number().over(numbers) + 1).cast("int64"),
            history.name: events[history.of].collect().over(window),
        },
    )
