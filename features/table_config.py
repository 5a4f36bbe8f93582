"""The tables of a recipe: where they lie, what their columns mean, and which column is whose key."""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from contract.durations import Duration
from contract.settings import Settings


class TimeFormat(Settings):
    """How a column tells moments that Parquet does not mark as such: numbers since 1970, or clock times of a zone."""

    unit: Literal["s", "ms", "us", "ns"] | None = None
    """Of a column of numbers: seconds, milliseconds, microseconds or nanoseconds since 1970 in UTC."""
    zone: str = "UTC"
    """Whose clocks times without a zone show, as Spark's INT96, pandas' plain times, dates and ISO texts do."""


class TableConfig(Settings):
    """A Parquet table: a file, a directory with hive partitions, a glob, or any of these as an fsspec URL; or a query.

    `columns` maps a column's name to an expression on the others: a derived column, or a new name for one there is.
    """

    path: str = ""
    sql: str | None = None
    """In place of `path`, one SELECT of DuckDB, such as ``SELECT * FROM 'log/*.parquet' JOIN ...``."""
    times: dict[str, TimeFormat] = {}
    """Columns that are moments though their type does not say so, by name."""
    where: str | None = None
    """A condition on the table's columns; other rows are not there."""
    columns: dict[str, str] = {}
    verify: bool = True
    """Read every page once before the build, so that damage is refused with file, row group and column."""

    @model_validator(mode="after")
    def _one_source(self) -> "TableConfig":
        if bool(self.path) == bool(self.sql):
            message = "say where the table is: `path`, or else `sql`"
            raise ValueError(message)
        return self


class LabelTableConfig(TableConfig):
    """What came of events, from a table of its own: clicks of impressions, purchases after views.

    The log gains the column `name`: 1 where the table has a row with the same values in the `by` columns, else 0; and
    of the earliest such row each other column that the recipe mentions, as ``name_COLUMN``.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    by: tuple[str, ...] = Field(min_length=1)
    time: str | None = None
    """The row's moment: only rows from the event's own on count. Without it the keys alone decide."""
    within: Duration | None = None
    """How long after the event a row counts."""

    @model_validator(mode="after")
    def _a_window_needs_time(self) -> "LabelTableConfig":
        if self.within is not None and self.time is None:
            message = f"labels {self.name!r}: `within` needs `time`, the column with the row's moment"
            raise ValueError(message)
        return self


class EventsConfig(TableConfig):
    """The log: one row an event. Without `user`, `item` or `time`, what needs them is refused by name."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_zone: str = "UTC"
    """Where a day begins, summer time included, for aggregates as of the end of the previous day."""
    until: date | None = None
    """The last day of the log that is read, in `time_zone`: replays the night after it, whatever came later."""
    duplicates: Literal["keep", "first", "refuse"] = "keep"
    late: Literal["rebuild", "refuse"] = "rebuild"
    """What to do with rows of days that were built before: build from their day on again, or refuse them."""
    partition_rows: int = Field(default=50_000, ge=1)
    """Days are kept together until they have so many events; what was built is reused by such runs of whole days."""
    user_columns: tuple[str, ...] = ()
    item_columns: tuple[str, ...] = ()
    """Columns of the log that describe the user or the item, not the context; serving takes their latest value."""


class EntityConfig(TableConfig):
    """Attributes of users or of items, one row a key.

    `known_at` names the column with the moment (a time with zone) from which a row's attributes were known; events
    before it see nulls, so that no feature is newer than its label.
    """

    key: str
    known_at: str | None = None


class PastConfig(TableConfig):
    """Events older than the whole log that carry no time: they count in aggregates and histories, and never train."""

    order: str | None = None
