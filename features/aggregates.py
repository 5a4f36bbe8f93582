"""Point-in-time sums and counts over the timeline, from strictly earlier events only.

With `as_of` ``event`` the window ends one millisecond before the row. With ``hour`` or ``day`` events are first summed in
tiles by key, and a row sees the tiles before its own; the row's own key and tile always exist, so the join back is an
equi-join on both, and it is a LEFT join (a row without keys has no history, which is the right meaning too).
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features.config import AggregateConfig, FeaturesConfig
from features.errors import ConfigError
from features.expressions import utc_offset_seconds
from features.timeline import DAY_MS, KIND, PAST, TIME, Timeline

HOUR_MS = 3_600_000
FIXED_POINT = 2.0**20
TILE = "__tile"


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


def add_aggregates(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> ir.Table:
    """The timeline with the sum and count columns of every aggregate; nothing before the row is 0, never null."""
    table = timeline.table
    labels = {task.name for task in config.tasks}
    for place, aggregate in enumerate(config.aggregates):
        where = f"data.aggregates[{place}]"
        values = {of: _value(table, of, labels, timeline, where) for of in aggregate.of}
        if aggregate.as_of == "event":
            added = _exact(table, aggregate, values)
        else:
            added = _tiled(table, aggregate, values, utc_offset_seconds(config.events.time_zone))
        table = connection.create_table(f"aggregate_{place}", added, temp=True)
    return table


def _value(table: ir.Table, of: str, labels: set[str], timeline: Timeline, where: str) -> ir.Value:
    """A task's label or a numeric column as float64; null on probes."""
    if of not in labels:
        timeline.ownership.side(of, f"{where}.of")
    value = table[f"label__{of}" if of in labels else of]
    kind = value.type()
    if not (kind.is_numeric() or kind.is_boolean()):
        message = f"{where}.of: column {of!r} is {kind}; allowed are numbers, booleans and task names"
        raise ConfigError(message)
    return ibis.ifelse(table[KIND] <= PAST, value.cast("float64"), ibis.null("float64"))


def fixed_point(value: ir.Value) -> ir.Value:
    """A float as a whole number of 2^-20: sums of whole numbers are exact, whatever the order an engine adds them in."""
    return (value * FIXED_POINT).round().cast("int64")


def _sums(table: ir.Table, values: dict[str, ir.Value]) -> dict[str, tuple[ir.Value, ir.Value]]:
    """By name the addend and the number of events it stands for; the empty name counts events."""
    real = (table[KIND] <= PAST).cast("int64")
    sums = {of: (fixed_point(value).fill_null(0), value.notnull().cast("int64")) for of, value in values.items()}
    return {**sums, "": (real, real)}


def _exact(table: ir.Table, config: AggregateConfig, values: dict[str, ir.Value]) -> ir.Table:
    keyed = _has_keys(table, config.by)
    sums = _sums(table, values)
    added: dict[str, ir.Value] = {}
    for window, planned in _by_window(config):
        frame = ibis.range_window(
            group_by=list(config.by), order_by=TIME, preceding=(_length_ms(window), 1)
        )
        for feature in planned:
            total, seen = sums[feature.of]
            if feature.total:
                added[feature.total] = ibis.ifelse(keyed, total.sum().over(frame), 0).fill_null(0).cast("int64")
            added[feature.seen] = ibis.ifelse(keyed, seen.sum().over(frame), 0).fill_null(0).cast("int64")
    return table.mutate(**added)


def _tiled(table: ir.Table, config: AggregateConfig, values: dict[str, ir.Value], offset_seconds: int) -> ir.Table:
    size = DAY_MS if config.as_of == "day" else HOUR_MS
    tile = ((table[TIME] + offset_seconds * 1000) // size).cast("int64")
    sums = _sums(table, values)
    flat = table.select(
        *config.by,
        **{TILE: tile},
        **{f"{of}/sum": total for of, (total, _) in sums.items()},
        **{f"{of}/n": seen for of, (_, seen) in sums.items()},
    )
    flat = flat.filter([flat[key].notnull() for key in config.by])
    tiles = flat.group_by([*config.by, TILE]).aggregate(
        **{c: flat[c].sum() for c in flat.columns if c.endswith(("/sum", "/n"))}
    )
    state = tiles.select(*config.by, TILE, **_running(tiles, config, size))
    joined = table.mutate(**{TILE: tile}).left_join(state, [*config.by, TILE])
    features = [c for c in state.columns if c not in {*config.by, TILE}]
    filled = {c: joined[c].fill_null(0) for c in features}
    return joined.mutate(**filled).select(*table.columns, *features)


def _running(tiles: ir.Table, config: AggregateConfig, size: int) -> dict[str, ir.Value]:
    """Sums over the complete tiles before each tile."""
    added: dict[str, ir.Value] = {}
    for window, planned in _by_window(config):
        length = _length_ms(window)
        frame = ibis.range_window(
            group_by=list(config.by), order_by=TILE, preceding=(None if length is None else length // size, 1)
        )
        for feature in planned:
            if feature.total:
                added[feature.total] = tiles[f"{feature.of}/sum"].sum().over(frame).cast("int64")
            added[feature.seen] = tiles[f"{feature.of}/n"].sum().over(frame).cast("int64")
    return added


def _by_window(config: AggregateConfig) -> list[tuple[str, list[AggregateColumns]]]:
    per_window = {w: config.model_copy(update={"windows": (w,)}) for w in config.windows}
    return [(window, plan_aggregate(one)) for window, one in per_window.items()]


def _has_keys(table: ir.Table, keys: tuple[str, ...]) -> ir.Value:
    present = table[keys[0]].notnull()
    for key in keys[1:]:
        present = present & table[key].notnull()
    return present


def _length_ms(window: str) -> int | None:
    """A window's length in milliseconds; None: everything before."""
    if window == "all":
        return None
    return int(window[:-1]) * (DAY_MS if window.endswith("d") else HOUR_MS)


