"""The `data:` block of a recipe: sources, features, point-in-time aggregates, histories, tasks and the split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from features.settings import Settings

Window = Annotated[str, Field(pattern=r"^(all|[1-9][0-9]*[hd])$")]
AsOf = Literal["event", "hour", "day"]


class TableConfig(Settings):
    """A Parquet table: a file, a directory with hive partitions, or a glob; `columns` adds derived columns by name."""

    path: str
    columns: dict[str, str] = {}


class EventsConfig(TableConfig):
    """The log: one row an event. Without `user`, `item` or `time`, what needs them is refused by name."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    time_zone: str = "UTC"
    """Where a day begins, for aggregates as of the end of the previous day."""
    duplicates: Literal["keep", "first", "refuse"] = "keep"
    user_columns: tuple[str, ...] = ()
    item_columns: tuple[str, ...] = ()
    """Columns of the log that describe the user or the item, not the context; serving takes their latest value."""


class EntityConfig(TableConfig):
    """Attributes of users or of items, one row a key."""

    key: str


class PastConfig(TableConfig):
    """Events older than the whole log that carry no time: they count in aggregates and histories, and never train."""

    order: str | None = None


class FeatureConfig(Settings):
    """A column as it is, owned by the table it stands in: the user's, the item's, or the context's.

    Encodings: ids take ``vocabulary`` (values seen at least `min_count` times in training) or ``hash`` into
    `buckets` rows; dense columns take ``piecewise_linear`` over at most `bins` quantiles, ``standardise`` or ``log1p``.
    """

    name: str
    kind: Literal["id", "id_list", "dense"] = "id"
    encoding: Literal["vocabulary", "hash", "piecewise_linear", "standardise", "log1p"] | None = None
    min_count: int = Field(default=1, ge=1)
    buckets: int = Field(default=10_000, ge=2)
    bins: int = Field(default=24, ge=2, le=256)
    max_length: int = Field(default=20, ge=1)
    pooling: Literal["sum", "mean"] = "mean"

    @model_validator(mode="after")
    def _encoding_fits_kind(self) -> "FeatureConfig":
        allowed = ("piecewise_linear", "standardise", "log1p") if self.kind == "dense" else ("vocabulary", "hash")
        if self.encoding is not None and self.encoding not in allowed:
            message = f"feature {self.name!r} of kind {self.kind!r} takes encoding {' or '.join(allowed)}"
            raise ValueError(message)
        return self


class AggregateConfig(Settings):
    """Sums over earlier events of the same keys: for each column of `of` a smoothed mean, and one count of events.

    Only events strictly before the row count; with `as_of` ``hour`` or ``day``, only those up to the end of the last
    complete hour or day. The mean is (sum + prior * m) / (n + prior), m being the column's mean over training rows.
    """

    by: tuple[str, ...] = Field(min_length=1)
    of: tuple[str, ...] = ()
    count: bool = True
    windows: tuple[Window, ...] = ("all",)
    as_of: AsOf = "event"
    prior: float = Field(default=20.0, gt=0)
    bins: int = Field(default=24, ge=2, le=256)


class HistoryConfig(Settings):
    """The last values of a column in strictly earlier events of the same key, newest last."""

    name: str
    of: str
    by: str
    last: int = Field(default=10, ge=1, le=200)
    where: str | None = None
    shares: str | None = None
    """An id feature whose vocabulary and embedding this list uses."""
    min_count: int = Field(default=1, ge=1)
    pooling: Literal["sum", "mean"] = "mean"


class TaskConfig(Settings):
    """A label as an expression on columns; `where` restricts the task to the rows where it applies."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["binary", "regression"]
    label: str
    where: str | None = None
    weight: str | None = None
    unit: str = ""


class SplitByUser(Settings):
    """Each user's rows in the order of time: the last go to test, those before them to valid."""

    by: Literal["user_time"]
    valid: float = Field(gt=0, lt=1)
    test: float = Field(default=0, ge=0, lt=1)


class SplitByExpression(Settings):
    """Rows for which `test` holds, then rows for which `valid` holds, then training rows."""

    by: Literal["expression"]
    valid: str
    test: str | None = None


class SplitByHash(Settings):
    """A random split, stable between builds: by the hash of the row's keys and time."""

    by: Literal["random"]
    valid: float = Field(gt=0, lt=1)
    test: float = Field(default=0, ge=0, lt=1)


SplitConfig = Annotated[SplitByUser | SplitByExpression | SplitByHash, Field(discriminator="by")]


class FeaturesConfig(Settings):
    """Everything that turns raw Parquet into training rows and online tables."""

    events: EventsConfig
    users: EntityConfig | None = None
    items: EntityConfig | None = None
    past: PastConfig | None = None
    features: tuple[FeatureConfig, ...] = ()
    aggregates: tuple[AggregateConfig, ...] = ()
    histories: tuple[HistoryConfig, ...] = ()
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    split: SplitConfig
    memory_limit: str = "3GB"
    seed: int = 0

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeaturesConfig":
        names = [f.name for f in self.features] + [h.name for h in self.histories]
        twice = sorted({name for name in names if names.count(name) > 1})
        tasks = [t.name for t in self.tasks]
        twice += sorted({name for name in tasks if tasks.count(name) > 1})
        if twice:
            message = f"names used twice: {', '.join(twice)}; give each feature and task its own name"
            raise ValueError(message)
        if not (self.features or self.aggregates or self.histories):
            message = "no features: list at least one under `features`, `aggregates` or `histories`"
            raise ValueError(message)
        return self
