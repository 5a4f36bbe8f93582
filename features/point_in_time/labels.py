"""Labels and weights of the timeline's rows: the event's own, or what later events of the same keys say."""

from typing import Any

import ibis
import ibis.expr.types as ir

from contract.columns import TIME, label_column, weight_column
from contract.durations import milliseconds
from contract.errors import ConfigError
from features.feature_config import FeaturesConfig, TaskConfig
from features.source.expressions import compile_condition, compile_expression
from features.source.row_types import EVENT, KIND, PAST, SAMPLED, without_nan


def with_tasks(table: ir.Table, config: FeaturesConfig, last_ms: int) -> ir.Table:
    """Add ``label__T`` float64 (null where the task does not apply) and ``weight__T`` float64 (0 there).

    `last_ms` is the time of the log's last event: a label whose window goes beyond it is not final.

    Raises:
        ConfigError: a key or an expression that does not fit the columns.
    """
    added = {}
    for place, task in enumerate(config.tasks):
        where = f"data.tasks[{place}]"
        label = _label(table, task, where, sampled=config.negatives is not None)
        weight = ibis.literal(1.0)
        if task.weight:
            weight = _number(
                compile_expression(task.weight, table, f"{where}.weight"), f"{where}.weight: {task.weight!r}"
            ).fill_null(0.0)
        real = table[KIND] <= PAST
        applies = label.notnull() & (real | (table[KIND] == SAMPLED) if config.negatives else real)
        if task.where:
            applies = applies & compile_condition(task.where, table, f"{where}.where")
        if task.within:
            applies = applies & ((table[KIND] == PAST) | (table[TIME] + milliseconds(task.within) <= last_ms))
        added[label_column(task.name)] = ibis.ifelse(applies, label, ibis.null("float64"))
        added[weight_column(task.name)] = ibis.ifelse(applies, weight, 0.0)
    return table.mutate(**added)


def _label(table: ir.Table, task: TaskConfig, where: str, *, sampled: bool) -> ir.Value:
    if task.by:
        label = _later(table, task, compile_condition(task.label, table, f"{where}.label"), where)
    else:
        label = _number(compile_expression(task.label, table, f"{where}.label"), f"{where}.label: {task.label!r}")
    if not sampled:
        return label
    of_sampled = ibis.literal(0.0) if task.kind == "binary" else ibis.null("float64")
    return ibis.ifelse(table[KIND] == SAMPLED, of_sampled, label)


def _number(value: Any, place: str) -> ir.Value:
    """A value as float64.

    Raises:
        ConfigError: a text, a list or a moment, which no label and no weight is.
    """
    value = value if isinstance(value, ibis.Expr) else ibis.literal(value)
    dtype = value.type()
    if not (dtype.is_numeric() or dtype.is_boolean()):
        message = f"{place} is {dtype}; allowed are numbers and conditions, such as {place.partition(': ')[2]} == ..."
        raise ConfigError(message)
    return without_nan(value)


def _later(table: ir.Table, task: TaskConfig, own: ir.BooleanValue, where: str) -> ir.Value:
    """Whether, or how often, later events of the same keys within the window satisfy the label's expression."""
    missing = [key for key in task.by if key not in table.columns]
    if missing:
        message = f"{where}.by: no column {missing[0]!r}; there are {', '.join(table.columns)}"
        raise ConfigError(message)
    counted = ibis.ifelse((table[KIND] == EVENT) & own, 1, 0)
    frame = ibis.range_window(group_by=list(task.by), order_by=TIME, following=(1, milliseconds(task.within or "")))
    number = counted.sum().over(frame).fill_null(0)
    has_keys = table[task.by[0]].notnull()
    for key in task.by[1:]:
        has_keys = has_keys & table[key].notnull()
    value = (number > 0).cast("float64") if task.kind == "binary" else number.cast("float64")
    return ibis.ifelse(has_keys & (table[KIND] != PAST), value, ibis.null("float64"))
