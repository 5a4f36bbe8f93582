"""Point-in-time sums and counts over the timeline, from strictly earlier events only.

With `as_of` ``event`` the window ends one millisecond before the row. With ``hour`` or ``day`` events are first summed
in tiles by key, and a row sees the tiles before its own; the row's own key and tile always exist, so joining back is an
equi-join on both, and it is a LEFT join (a row without keys has no history, which is the right meaning too).
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features.config import AggregateConfig, FeaturesConfig
from features.errors import ConfigError
from features.timeline import DAY_MS, HOUR_MS, KIND, PAST, ROW, TIME, Timeline, tile_column, without_nan

FIXED_POINT = 2.0**20


@dataclass(frozen=True)
class AggregateColumns:
    """One aggregate feature: the columns `total` and `seen` make the smoothed mean; `total` empty: a count, `seen`."""

    name: str
    keys: tuple[str, ...]
    total: str
    seen: str
    of: str
    prior: float
    bins: int


def plan_aggregate(config: AggregateConfig) -> list[AggregateColumns]:
    """The features that an aggregate makes, with the names of the columns that feed them."""
    key = "_x_".join(config.by)
    planned = []
    for window in config.windows:
        tail = "" if window == "all" else f"_{window}"
        for of in config.of:
            name = f"{key}__{of}_mean{tail}"
            planned.append(AggregateColumns(name, config.by, f"{name}/sum", f"{name}/n", of, config.prior, config.bins))
        if config.count:
            name = f"{key}__count{tail}"
            planned.append(AggregateColumns(name, config.by, "", f"{name}/n", "", config.prior, config.bins))
    return planned


@dataclass(frozen=True)
class State:
    """A narrow table of values to be joined to the timeline's rows by equality on `on`; absent rows take `empty`."""

    table: ir.Table
    on: tuple[str, ...]
    columns: tuple[str, ...]
    names: tuple[str, ...]
    """The features that these columns feed."""


def aggregate_states(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[State]:
    """One materialised state an aggregate: its sum and count columns, as whole numbers."""
    labels = {task.name for task in config.tasks}
    states = []
    for place, aggregate in enumerate(config.aggregates):
        where = f"data.aggregates[{place}]"
        values = {of: _value(timeline.table, of, labels, timeline, where) for of in aggregate.of}
        if aggregate.as_of == "event":
            made = _exact(timeline.table, aggregate, values)
        else:
            made = _tiled(timeline.table, aggregate, values)
        on = (ROW,) if aggregate.as_of == "event" else (*aggregate.by, tile_column(aggregate.as_of))
        table = connection.create_table(f"aggregate_{place}", made, temp=True)
        names = tuple(plan.name for plan in plan_aggregate(aggregate))
        states.append(State(table, on, tuple(c for c in table.columns if c not in on), names))
    return states


def _value(table: ir.Table, of: str, labels: set[str], timeline: Timeline, where: str) -> ir.Value:
    """A task's label or a numeric column as float64; null on probes."""
    if of not in labels:
        timeline.ownership.side(of, f"{where}.of")
    value = table[f"label__{of}" if of in labels else of]
    kind = value.type()
    if not (kind.is_numeric() or kind.is_boolean()):
        message = f"{where}.of: column {of!r} is {kind}; allowed are numbers, booleans and task names"
        raise ConfigError(message)
    return ibis.ifelse(table[KIND] <= PAST, without_nan(value), ibis.null("float64"))


def fixed_point(value: ir.Value) -> ir.Value:
    """A float as a whole number of 2^-20: sums of whole numbers are exact, in whatever order they are added."""
    return (value * FIXED_POINT).round().cast("int64")


def _sums(table: ir.Table, values: dict[str, ir.Value]) -> dict[str, tuple[ir.Value, ir.Value]]:
    """By name the addend and the number of events it stands for; the empty name counts events."""
    real = (table[KIND] <= PAST).cast("int64")
    sums = {of: (fixed_point(value).fill_null(0), value.notnull().cast("int64")) for of, value in values.items()}
    return {**sums, "": (real, real)}


def _exact(table: ir.Table, config: AggregateConfig, values: dict[str, ir.Value]) -> ir.Table:
    """By row number, sums over the events of the same keys that end a millisecond before the row."""
    flat = _flat(table, config.by, TIME, _sums(table, values), ROW)
    return flat.select(ROW, **_running(flat, config, TIME, 1))


def _tiled(table: ir.Table, config: AggregateConfig, values: dict[str, ir.Value]) -> ir.Table:
    """By keys and tile, sums over the complete tiles before it; every row's own keys and tile are there."""
    tile = tile_column(config.as_of)
    flat = _flat(table, config.by, tile, _sums(table, values))
    tiles = flat.group_by([*config.by, tile]).aggregate(
        **{c: flat[c].sum().cast("int64") for c in flat.columns if c.endswith(("/sum", "/n"))}
    )
    size = DAY_MS if config.as_of == "day" else HOUR_MS
    return tiles.select(*config.by, tile, **_running(tiles, config, tile, size))


def _flat(
    table: ir.Table, keys: tuple[str, ...], order: str, sums: dict[str, tuple[ir.Value, ir.Value]], *extra: str
) -> ir.Table:
    """Only what the sums need, of the rows that have all keys."""
    flat = table.select(
        *keys,
        order,
        *extra,
        **{f"{of}/sum": total for of, (total, _) in sums.items()},
        **{f"{of}/n": seen for of, (_, seen) in sums.items()},
    )
    return flat.filter([flat[key].notnull() for key in keys])


def _running(flat: ir.Table, config: AggregateConfig, order: str, size: int) -> dict[str, ir.Value]:
    """Sums over windows of `order` (milliseconds, or tiles of `size` milliseconds) that end one unit before the row."""
    added: dict[str, ir.Value] = {}
    for window in config.windows:
        length = _length_ms(window)
        frame = ibis.range_window(
            group_by=list(config.by), order_by=order, preceding=(None if length is None else length // size, 1)
        )
        for feature in plan_aggregate(config.model_copy(update={"windows": (window,)})):
            if feature.total:
                added[feature.total] = flat[f"{feature.of}/sum"].sum().over(frame).fill_null(0).cast("int64")
            added[feature.seen] = flat[f"{feature.of}/n"].sum().over(frame).fill_null(0).cast("int64")
    return added


def _length_ms(window: str) -> int | None:
    """A window's length in milliseconds; None: everything before."""
    if window == "all":
        return None
    return int(window[:-1]) * (DAY_MS if window.endswith("d") else HOUR_MS)
