"""Events looked for in the log of served requests: by request id and item, or by user, item and time."""

import ibis
import ibis.expr.types as ir

from contract.columns import SERVED_ROW
from contract.durations import milliseconds
from contract.errors import DataError
from features.source.data_files import find_files
from features.source.functions import epoch_ms
from features.source.query_engine import Backend, read_parquet
from features.source.tables import place_of, require_columns
from features.table_config import EventsConfig

_REQUEST_ID, _AT = "request_id", "__served_at"


def with_served(connection: Backend, table: ir.Table, events: EventsConfig) -> ir.Table:
    """The log with `SERVED_ROW` and the ``served_`` columns of the candidate that each event was, null without one.

    `events.served` is a folder with one row per candidate. If an event matches several, as after a retried request, the
    last one before the event counts.

    Raises:
        DataError: keys that are of another type than the log's.
    """
    served = read_parquet(connection, find_files(str(events.served), "data.events.served"))
    served_columns = [c for c in served.columns if c.startswith("served_") and c not in table.columns]
    item, time = str(events.item), str(events.time)
    require_columns(table, {item: "data.events.item", time: "data.events.time"}, place_of(events))
    by = [_REQUEST_ID, item] if _REQUEST_ID in table.columns else [key for key in (events.user, item) if key]
    for key in by:
        _check_type(table, served, key, events)
    values = {c: served[c] for c in (SERVED_ROW, *served_columns)}
    rows = served.select(*by, served[time].name(_AT), **values).filter([served[key].notnull() for key in by])
    if _REQUEST_ID in by:
        first = rows.group_by(by).aggregate(**{c: rows[c].argmax(rows[SERVED_ROW]) for c in (_AT, *values)})
        joined = table.left_join(first, by)
        return joined.drop([_AT, *(f"{key}_right" for key in by)])
    latest = rows.group_by([*by, _AT]).aggregate(**{c: rows[c].argmax(rows[SERVED_ROW]) for c in values})
    joined = table.asof_join(
        latest, on=table[time] >= latest[_AT], predicates=[table[key] == latest[key] for key in by]
    )
    joined = joined.drop([c for c in joined.columns if c.endswith("_right") and c.removesuffix("_right") in by])
    near = epoch_ms(joined[time]) - epoch_ms(joined[_AT]) <= milliseconds(events.served_within)
    joins = {c: ibis.ifelse(near.fill_null(False), joined[c], ibis.null(joined[c].type())) for c in values}  # noqa: FBT003
    return joined.mutate(**joins).drop(_AT)


def _check_type(table: ir.Table, served: ir.Table, key: str, events: EventsConfig) -> None:
    here, there = table[key].type(), served[key].type()
    if here.copy(nullable=True) != there.copy(nullable=True) and not (here.is_integer() and there.is_integer()):
        message = (
            f"column {key!r} is {here} in {place_of(events)}, but {there} in the log of served requests; make them one "
            f"type, such as `columns: {{{key}: text({key})}}`"
        )
        raise DataError(message)
