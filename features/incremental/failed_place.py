"""The place in a recipe where a query failed: an engine's error names a value at most, and no part of the file."""

from collections.abc import Iterator

import ibis
import ibis.expr.types as ir

from contract.columns import TIME
from contract.errors import MoerankError
from features.feature_config import FeaturesConfig
from features.source.entities import Sources, read_sources, with_attributes
from features.source.expressions import compile_expression
from features.source.query_engine import Backend, engine_errors, first_line, is_out_of_memory
from features.source.row_types import EVENT, KIND, OBSERVED, ORDER
from features.source.tables import failed_part, open_table, why_not
from features.source.times import event_ms
from features.source.used_columns import raw_columns


def explain(connection: Backend, config: FeaturesConfig, error: Exception) -> str:
    """What to tell of an engine's error: the part of the recipe that cannot be computed, with the engine's words.

    Each part is run alone until one fails, so that this takes about as long as reading the tables.
    """
    if is_out_of_memory(error):
        return f"the sources need more than data.memory_limit ({config.memory_limit}): {first_line(error)}; raise it"
    quick = unverified(config)
    expected: tuple[type[Exception], ...] = (MoerankError, *engine_errors())
    try:
        place = _failed_table(connection, quick) or _failed_expression(connection, quick)
    except expected:
        place = ""
    return place or f"the sources cannot be used: {first_line(error)}"


def unverified(config: FeaturesConfig) -> FeaturesConfig:
    """A recipe whose pages are not verified, which takes as long as reading them."""
    tables = {name: getattr(config, name) for name in ("events", "users", "items", "past")}
    changed = {name: table.model_copy(update={"verify": False}) for name, table in tables.items() if table is not None}
    labels = tuple(table.model_copy(update={"verify": False}) for table in config.labels)
    return config.model_copy(update={**changed, "labels": labels})


def joined_log(sources: Sources, config: FeaturesConfig, rows: int | None = None) -> ir.Table:
    """The log, or its first `rows`, with attributes and the columns that expressions of tasks may mention."""
    events = sources.events if rows is None else sources.events.limit(rows)
    kind, order = ibis.literal(EVENT, "int8"), ibis.literal(0, "int64")
    log = events.mutate(**{TIME: event_ms(events, config), KIND: kind, ORDER: order})
    log = log.mutate(**{OBSERVED: ibis.literal(1, "int8")}) if config.negatives else log
    return with_attributes(log, sources.entities, config)


def _failed_table(connection: Backend, config: FeaturesConfig) -> str:
    for name, table in config.tables():
        where, used = f"data.{name}", raw_columns(config, table)
        if table.path or table.sql:
            found = failed_part(connection, open_table(connection, table, where, used), table, where, used)
            if found:
                return found
    return ""


def _failed_expression(connection: Backend, config: FeaturesConfig) -> str:
    joined = joined_log(read_sources(connection, config), config)
    for place, text in _expressions(config):
        why = why_not(connection, joined.select(value=compile_expression(text, joined, place)), "value")
        if why:
            return f"{place}: {text!r} cannot be computed: {why}"
    return ""


def _expressions(config: FeaturesConfig) -> Iterator[tuple[str, str]]:
    for number, task in enumerate(config.tasks):
        texts = {"label": task.label, "where": task.where, "weight": task.weight}
        yield from ((f"data.tasks[{number}] ({task.name}).{name}", text) for name, text in texts.items() if text)
    for number, history in enumerate(config.histories):
        if history.where:
            yield f"data.histories[{number}] ({history.name}).where", history.where
    if config.split.by == "expression":
        texts = {"valid": config.split.valid, "test": config.split.test}
        yield from ((f"data.split.{name}", text) for name, text in texts.items() if text)
