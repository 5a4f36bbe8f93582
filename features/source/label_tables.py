"""What came of events, from tables of their own: each event takes the first row of its keys that came after it.

An event looks forward from its own moment, no further than `within`; of many rows the earliest counts. A row may be
the outcome of several events, such as a purchase after three views.
"""

import ibis
import ibis.expr.types as ir

from contract.durations import milliseconds
from contract.errors import ConfigError, DataError
from features.feature_config import FeaturesConfig
from features.source.functions import epoch_ms
from features.source.query_engine import Backend, is_spark
from features.source.tables import place_of, read_table, require_columns, require_zone
from features.source.used_columns import raw_columns
from features.table_config import LabelTableConfig

_AT, _MARK = "__outcome_at", "__outcome"


def with_labels(connection: Backend, log: ir.Table, config: FeaturesConfig) -> ir.Table:
    """The log with the columns that its label tables add.

    Raises:
        DataError: a table without its keys, or keys that are of another type than the log's.
        ConfigError: a name that the log has, too; a window for a log without time.
    """
    for place, table in enumerate(config.labels):
        where = f"data.labels[{place}]"
        mentioned = raw_columns(config, table)
        rows = read_table(connection, table, where, mentioned)
        _check(log, rows, table, config, where)
        mentioned_columns = [c for c in rows.columns if f"{table.name}_{c}" in mentioned]
        clash = [
            name for name in (table.name, *(f"{table.name}_{c}" for c in mentioned_columns)) if name in log.columns
        ]
        if clash:
            message = f"{where} adds the column {clash[0]!r}, but the log has one of that name; choose another `name`"
            raise ConfigError(message)
        labelled = _by_keys(log, rows, table, mentioned_columns)
        if table.time is not None:
            if is_spark(connection):
                message = f"{where}: a label table with `time` needs engine duckdb"
                raise ConfigError(message)
            labelled = _first_after(log, rows, table, mentioned_columns, str(config.events.time))
        log = labelled
    return log


def _check(log: ir.Table, rows: ir.Table, table: LabelTableConfig, config: FeaturesConfig, where: str) -> None:
    require_columns(rows, dict.fromkeys(table.by, f"{where}.by"), place_of(table))
    require_columns(log, dict.fromkeys(table.by, f"{where}.by"), place_of(config.events))
    for key in table.by:
        here, there = rows[key].type(), log[key].type()
        if here.copy(nullable=True) != there.copy(nullable=True) and not (here.is_integer() and there.is_integer()):
            message = (
                f"{where}: column {key!r} is {here} in {place_of(table)}, but {there} in the log; make them one type"
            )
            raise DataError(message)
    if table.time is not None:
        if config.events.time is None:
            message = f"{where}.time needs data.events.time: rows are looked for from the event's moment on"
            raise ConfigError(message)
        require_columns(rows, {table.time: f"{where}.time"}, place_of(table))
        require_zone(rows, table.time, place_of(table))
        require_zone(log, config.events.time, place_of(config.events))


def _by_keys(log: ir.Table, rows: ir.Table, table: LabelTableConfig, kept: list[str]) -> ir.Table:
    """Each event with the rows of its keys; without times, of several values the largest."""
    values = {f"{table.name}_{c}": rows[c].max() for c in kept}
    by_key = rows.group_by(list(table.by)).aggregate(**values, **{_MARK: rows.count()})
    joined = log.left_join(by_key, list(table.by)).drop([f"{key}_right" for key in table.by])
    return joined.mutate(**{table.name: joined[_MARK].notnull().cast("int64")}).drop(_MARK)


def _first_after(log: ir.Table, rows: ir.Table, table: LabelTableConfig, kept: list[str], time: str) -> ir.Table:
    """Each event with the first row of its keys at or after its moment."""
    at = rows[str(table.time)].name(_AT)
    named = rows.select(*table.by, at, **{f"{table.name}_{c}": rows[c] for c in kept})
    named = named.filter([named[_AT].notnull(), *(named[key].notnull() for key in table.by)])
    values = {f"{table.name}_{c}": named[f"{table.name}_{c}"].max() for c in kept}
    by_moment = named.group_by([*table.by, _AT]).aggregate(**values, **{_MARK: named.count()})
    keys = [log[key] == by_moment[key] for key in table.by]
    joined = log.asof_join(by_moment, on=log[time] <= by_moment[_AT], predicates=keys)
    joined = joined.drop([c for c in joined.columns if c.endswith("_right") and c.removesuffix("_right") in table.by])
    came = joined[_MARK].notnull()
    if table.within is not None:
        came = came & (epoch_ms(joined[_AT]) - epoch_ms(joined[time]) <= milliseconds(table.within)).fill_null(False)  # noqa: FBT003
    columns = {name: ibis.ifelse(came, joined[name], ibis.null(joined[name].type())) for name in values}
    return joined.mutate(**columns, **{table.name: came.cast("int64")}).drop(_AT, _MARK)
