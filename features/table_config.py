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
    """A Parquet table, or a query that makes one."""

    path: str = ""
    """A file, a directory with hive partitions, a glob, or any of these as an fsspec URL."""
    sql: str | None = None
    """In place of `path`, one SELECT of DuckDB, such as ``SELECT * FROM 'log/*.parquet' JOIN ...``."""
    times: dict[str, TimeFormat] = {}
    """Columns that are moments though their type does not say so, by name."""
    where: str | None = None
    """A condition on the table's columns; other rows are not there."""
    columns: dict[str, str] = {}
    """Derived columns, or new names of columns: by name, an expression on the others."""
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
    """The column that the log gains."""
    by: tuple[str, ...] = Field(min_length=1)
    """The columns that both tables have and by which rows belong together."""
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
    """The log: one row per event. Without `user`, `item` or `time`, the settings that need them are refused.

    With `served`, rows train on the features that they were served with. Without another source each logged candidate
    is an event, whose outcome `labels` bring; with one, its events are looked for in the log, and those that were not
    served count in features but do not train.
    """

    served: str | None = None
    """The log of served requests, as `moerank serve --log` writes it: a folder or URL with one model."""
    served_within: Duration = "1h"
    """How long after it was served an event of the same user and item may come, where no `request_id` tells."""
    user: str | None = None
    """The column with the user's id."""
    item: str | None = None
    """The column with the item's id."""
    time: str | None = None
    """The column with the event's moment."""
    key: str | None = None
    """The column that tells the log's rows apart, such as an impression's id: predictions carry it along."""
    time_zone: str = "UTC"
    """Where a day begins, summer time included, for aggregates as of the end of the previous day."""
    until: date | None = None
    """The last day of the log that is read, in `time_zone`: replays the night after it, whatever came later."""
    duplicates: Literal["keep", "first", "refuse"] = "keep"
    """What to do with rows that repeat another exactly."""
    late: Literal["rebuild", "refuse"] = "rebuild"
    """What to do with rows of days that were built before: build from their day on again, or refuse them."""
    partition_rows: int = Field(default=50_000, ge=1)
    """Days are kept together until they have so many events; what was built is reused by such runs of whole days."""
    user_columns: tuple[str, ...] = ()
    """Columns of the log that describe the user, not the context; serving takes their latest value."""
    item_columns: tuple[str, ...] = ()
    """Columns of the log that describe the item, not the context; serving takes their latest value."""

    @model_validator(mode="after")
    def _one_source(self) -> "EventsConfig":
        if (self.path and self.sql) or not (self.path or self.sql or self.served):
            message = "say where the log is: `path`, or else `sql`, or the log of what was `served`"
            raise ValueError(message)
        if self.served and not (self.item and self.time):
            message = "with `served`, say which columns hold the `item` and the `time`, and the `user` if there is one"
            raise ValueError(message)
        return self


class EntityConfig(TableConfig):
    """Attributes of users or of items, one row for each key."""

    key: str
    """The column with the id of the user or item."""
    known_at: str | None = None
    """The column with the moment (a time with zone) from which on a row's attributes were known: earlier events see
    nulls, so that no feature is newer than its label."""
    newest: str | None = None
    """Of several rows of a key, the one with the largest value in this column is taken; without it they are refused."""


class PastConfig(TableConfig):
    """Events older than the whole log that carry no time: they count in aggregates and histories, and never train."""

    order: str | None = None
    """The column of whole numbers that orders these events; without it they count as simultaneous."""
