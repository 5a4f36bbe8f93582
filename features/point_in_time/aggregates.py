"""Point-in-time sums and counts over the timeline, from strictly earlier events only.

With `as_of` ``event`` the window ends one millisecond before the row. With ``hour`` or ``day`` events are first summed
in tiles by key, and a row sees the tiles before its own; the row's own key and tile always exist, so joining back is an
equi-join on both, and it is a LEFT join (a row without keys has no history, which is the right meaning too).

A label that is final only some time after its event counts from then on: its window ends that much earlier.
"""

from dataclasses import dataclass
from typing import Any, Literal

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from contract.columns import TIME, label_column
from contract.durations import milliseconds
from contract.errors import ConfigError, DataError
from features.feature_config import AggregateConfig, FeaturesConfig
from features.point_in_time.carry_over import LAST, CarryOver, merge_addends
from features.point_in_time.timeline import Timeline
from features.source.query_engine import Backend, engine_errors, first_line, is_overflow, materialise
from features.source.row_types import DAY_MS, HOUR_MS, KIND, PAST, ROW, tile_column, without_nan
from features.source.zones import day_begin, day_number, longest_shift_ms, offset_steps

WHOLE, LONG, EXACT = "!int64", "!decimal(38, 0)", "!decimal(38, 16)"
"""Types of addends and of their sums, which are exact in whatever order rows come: of whole numbers up to 32 bits, of
longer ones, and of fractions. The last reaches to 1e22 in steps of 1e-16. Sums are cast to them, because DuckDB's sums
are wider than ibis takes them for."""
LONG_BYTES = 8
SMALLEST = 1e-10
"""Values up to this size lose the sixth digit."""
Stat = Literal["smoothed", "mean", "sum", "count", "since"]
_NAMES = {"smoothed": "mean", "mean": "plain_mean", "sum": "sum"}


@dataclass(frozen=True)
class AggregateColumns:
    """One aggregate feature, of the column `total` (a sum), `seen` (how many), or both; one that is not used is ""."""

    name: str
    keys: tuple[str, ...]
    total: str
    seen: str
    of: str
    prior: float
    bins: int
    stat: Stat

    @property
    def raw(self) -> tuple[str, ...]:
        """The raw columns that make the feature."""
        return tuple(column for column in (self.total, self.seen) if column)


def plan_aggregate(config: AggregateConfig) -> list[AggregateColumns]:
    """The features that an aggregate makes, with the names of the columns that feed them."""
    key = "_x_".join(config.by)
    planned = []
    for window in config.windows:
        tail = "" if window == "all" else f"_{window}"
        for of in config.of:
            raw = f"{key}__{of}_mean{tail}"
            for stat in config.stats:
                name = f"{key}__{of}_{_NAMES[stat]}{tail}"
                seen = "" if stat == "sum" else f"{raw}/n"
                planned.append(
                    AggregateColumns(name, config.by, f"{raw}/sum", seen, of, config.prior, config.bins, stat)
                )
        if config.count:
            name = f"{key}__count{tail}"
            planned.append(AggregateColumns(name, config.by, "", f"{name}/n", "", config.prior, config.bins, "count"))
    if config.since:
        name = f"{key}__since"
        planned.append(AggregateColumns(name, config.by, "", name, "", config.prior, config.bins, "since"))
    return planned


@dataclass(frozen=True)
class WindowColumns:
    """A narrow table of values to be joined to the timeline's rows by equality on `on`; absent rows take `empty`."""

    table: ir.Table
    on: tuple[str, ...]
    columns: tuple[str, ...]
    names: tuple[str, ...]
    """The features that these columns feed."""


def compute_windows(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[WindowColumns]:
    """One materialised state an aggregate: its sum and count columns, and seconds since the last event.

    Raises:
        DataError: a value or a sum that is too large for exact sums.
    """
    states = []
    for place, aggregate in enumerate(config.aggregates):
        on = (ROW,) if aggregate.as_of == "event" else (*aggregate.by, tile_column(aggregate.as_of))
        windows = Windows(aggregate, lags_ms(config), config.events.time_zone)
        flat = flat_addends(timeline.table, timeline, config, place)
        if timeline.carry_over is not None:
            flat = windows.extend(flat, _merged(connection, timeline.carry_over, windows, timeline, config, place))
        table = _materialised(connection, place, windows.over(flat), config)
        names = tuple(plan.name for plan in plan_aggregate(aggregate))
        states.append(WindowColumns(table, on, tuple(c for c in table.columns if c not in on), names))
    return states


def _materialised(connection: Backend, place: int, table: ir.Table, config: FeaturesConfig) -> ir.Table:
    try:
        return materialise(connection, f"aggregate_{place}", table)
    except engine_errors() as error:
        if not is_overflow(error):
            raise
        aggregate = config.aggregates[place]
        message = (
            f"data.aggregates[{place}] cannot add up {', '.join(aggregate.of)} by {', '.join(aggregate.by)}: "
            f"{first_line(error)}; sums reach to 1e22, so write null for infinity and for markers of "
            "what is missing, or divide the column by a constant under `columns`"
        )
        raise DataError(message) from error


def added_columns(config: FeaturesConfig) -> dict[str, str]:
    """What aggregates add up, and the column of the raw rows that holds it."""
    tasks = {task.name for task in config.tasks}
    names = dict.fromkeys(of for aggregate in config.aggregates for of in aggregate.of)
    return {of: label_column(of) if of in tasks else of for of in names}


def refuse_tiny_addends(rows: pa.Table, config: FeaturesConfig) -> None:
    """Refuse to add up a column all of whose values in some `rows` are lost, or nearly so, in the steps of sums.

    Raises:
        DataError: naming the column and its largest value.
    """
    for of, name in added_columns(config).items():
        column = rows[name]
        largest = pc.max(pc.abs(column.cast(pa.float64()))).as_py() if pa.types.is_floating(column.type) else None
        if largest and largest < SMALLEST:
            message = (
                f"column {of!r}, which aggregates add up, is nowhere larger than {largest:g}, and sums have steps of "
                f"1e-16; give it another unit, such as `columns: {{{of}_nano: {of} * 1e9}}`"
            )
            raise DataError(message)


def _merged(
    connection: Backend,
    carry_over: CarryOver,
    windows: "Windows",
    timeline: Timeline,
    config: FeaturesConfig,
    place: int,
) -> ir.Table:
    """The addends of earlier days, as far back as windows of later rows reach."""
    return carry_over.merge(
        connection,
        f"aggregate_{place}",
        lambda table: flat_addends(table, timeline, config, place),
        lambda flat: windows.merge(flat, carry_over.until_ms),
    )


def lags_ms(config: FeaturesConfig) -> dict[str, int]:
    """By task with a delayed label, how long after its event the label is final."""
    return {task.name: milliseconds(task.within) for task in config.tasks if task.within}


def flat_addends(table: ir.Table, timeline: Timeline, config: FeaturesConfig, place: int) -> ir.Table:
    """What an aggregate adds up, by row or tile of a table that has all its keys: sum, number and time by column."""
    aggregate, where = config.aggregates[place], f"data.aggregates[{place}]"
    values = {of: _addend(table, of, config, timeline, where) for of in aggregate.of}
    extra = (ROW,) if aggregate.as_of == "event" else ()
    order = TIME if aggregate.as_of == "event" else tile_column(aggregate.as_of)
    return _flat(table, aggregate, order, _sums(table, values), *extra)


def _addend(table: ir.Table, of: str, config: FeaturesConfig, timeline: Timeline, where: str) -> ir.Value:
    """A task's label or a numeric column in the type it is summed in; null on probes."""
    task = next((task for task in config.tasks if task.name == of), None)
    if task is None:
        timeline.ownership.side(of, f"{where}.of", [task.name for task in config.tasks])
    value = table[of if task is None else label_column(of)]
    dtype = value.type()
    if not (dtype.is_numeric() or dtype.is_boolean()):
        message = f"{where}.of: column {of!r} is {dtype}; allowed are numbers, booleans and task names"
        raise ConfigError(message)
    exact = WHOLE if task is not None and task.kind == "binary" else addend_type(dtype)
    number = without_nan(value) if dtype.is_floating() else value
    return ibis.ifelse(table[KIND] <= PAST, number.cast(exact.removeprefix("!")), ibis.null(exact.removeprefix("!")))


def addend_type(dtype: Any) -> str:
    """The type in which a column's values are summed."""
    if dtype.is_boolean() or (dtype.is_integer() and dtype.nbytes < LONG_BYTES):
        return WHOLE
    return LONG if dtype.is_integer() else EXACT


def _sums(table: ir.Table, values: dict[str, ir.Value]) -> dict[str, tuple[ir.Value, ir.Value]]:
    """By name the addend and the number of events it stands for; the empty name counts events."""
    real = (table[KIND] <= PAST).cast("int64")
    sums = {of: (zero_for_null(value), value.notnull().cast("int64")) for of, value in values.items()}
    return {**sums, "": (real, real)}


def zero_for_null(value: ir.Value) -> ir.Value:
    """A sum over nothing is 0, in the sum's own type."""
    return value.fill_null(ibis.literal(0).cast(value.type()))


def _flat(
    table: ir.Table, config: AggregateConfig, order: str, sums: dict[str, tuple[ir.Value, ir.Value]], *extra: str
) -> ir.Table:
    """Only what the sums need, of the rows that have all keys; tiled aggregates are summed by key and tile."""
    last = {LAST: ibis.ifelse(table[KIND] <= PAST, table[TIME], ibis.null("int64"))} if config.since else {}
    flat = table.select(
        *config.by,
        order,
        *extra,
        **{f"{of}/sum": total for of, (total, _) in sums.items() if of},
        **{f"{of}/n": seen for of, (_, seen) in sums.items()},
        **last,
    )
    flat = flat.filter([flat[key].notnull() for key in config.by])
    return flat if extra else sum_tiles(flat, config)


def _never_null(value: ir.Value) -> Any:
    return value.type().copy(nullable=False)


def sum_tiles(flat: ir.Table, config: AggregateConfig) -> ir.Table:
    """Addends by keys and tile."""
    tile = tile_column(config.as_of)
    sums = {c: flat[c].sum().cast(_never_null(flat[c])) for c in flat.columns if c.endswith(("/sum", "/n"))}
    last = {LAST: flat[LAST].max()} if config.since else {}
    return flat.group_by([*config.by, tile]).aggregate(**sums, **last)


@dataclass(frozen=True)
class Windows:
    """The windows of one aggregate over its addends; `lags` by task, `zone` where days begin."""

    config: AggregateConfig
    lags: dict[str, int]
    zone: str

    @property
    def order(self) -> str:
        """The column that windows run over: milliseconds, or numbers of tiles."""
        return TIME if self.config.as_of == "event" else tile_column(self.config.as_of)

    @property
    def _unit_ms(self) -> int:
        return {"event": 1, "hour": HOUR_MS, "day": DAY_MS}[self.config.as_of]

    def extend(self, flat: ir.Table, merged: ir.Table) -> ir.Table:
        """The addends with those of earlier days."""
        together = ibis.union(flat, merged.cast(dict(flat.schema())).select(flat.columns))
        return together if self.config.as_of == "event" else sum_tiles(together, self.config)

    def merge(self, before: ir.Table, until_ms: int) -> ir.Table:
        """The addends of earlier days, as far back as windows of rows from `until_ms` on reach."""
        first = self._first(until_ms)
        lags = [self._lag(self.lags.get(of, 0)) for of in ("", *self.config.of)]
        lengths = [(_length_ms(window) or 0) // self._unit_ms for window in self.config.windows]
        all_time = self.config.since or "all" in self.config.windows
        reach = first - max(lags) - max(lengths)
        return merge_addends(before, self.config.by, self.order, reach, all_time=all_time)

    def _first(self, ms: int) -> int:
        """The place of a moment in the order that windows run over."""
        match self.config.as_of:
            case "event":
                return ms
            case "hour":
                return (ms + offset_steps(self.zone)[0][1]) // HOUR_MS
            case "day":
                return day_number(ms, self.zone)

    def _begin(self, place: ir.Value) -> ir.Value:
        """The first moment of a place in that order."""
        match self.config.as_of:
            case "event":
                return place
            case "hour":
                return place * HOUR_MS - offset_steps(self.zone)[0][1]
            case "day":
                return day_begin(place, self.zone)

    def _lag(self, lag_ms: int) -> int:
        """A delay in whole tiles, no shorter even where a day is."""
        longer = longest_shift_ms(self.zone) if lag_ms and self.config.as_of == "day" else 0
        return -(-(lag_ms + longer) // self._unit_ms)

    def over(self, flat: ir.Table) -> ir.Table:
        """Sums that end one millisecond, or one tile, before each row of `flat`, by row number or by keys and tile."""
        added: dict[str, ir.Value] = {}
        for window in self.config.windows:
            for feature in plan_aggregate(self.config.model_copy(update={"windows": (window,), "since": False})):
                frame = self._frame(window, self.lags.get(feature.of, 0))
                for column, addend in ((feature.total, f"{feature.of}/sum"), (feature.seen, f"{feature.of}/n")):
                    if column:
                        total = flat[addend].sum().over(frame)
                        added[column] = zero_for_null(total.cast(flat[addend].type())).cast(_never_null(flat[addend]))
        if self.config.since:
            seconds = (self._begin(flat[self.order]) - flat[LAST].max().over(self._frame("all", 0))) / 1000
            added[f"{'_x_'.join(self.config.by)}__since"] = seconds.cast("float64")
        on = (ROW,) if self.config.as_of == "event" else (*self.config.by, self.order)
        return flat.select(*on, **added)

    def _frame(self, window: str, lag_ms: int) -> ir.Value:
        """The window's events whose labels were final before the row; lags are rounded up to whole tiles."""
        length, lag = _length_ms(window), self._lag(lag_ms)
        first = None if length is None else length // self._unit_ms + lag
        return ibis.range_window(group_by=list(self.config.by), order_by=self.order, preceding=(first, 1 + lag))


def _length_ms(window: str) -> int | None:
    """A window's length in milliseconds; None: everything before."""
    if window == "all":
        return None
    return int(window[:-1]) * (DAY_MS if window.endswith("d") else HOUR_MS)
