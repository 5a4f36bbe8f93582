"""The `data:` block of a recipe: sources, features, point-in-time aggregates, histories, tasks and the split."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contract.durations import Duration
from contract.settings import Settings
from features.table_config import EntityConfig, EventsConfig, LabelTableConfig, PastConfig

Window = Annotated[str, Field(pattern=r"^(all|[1-9][0-9]*[hd])$")]
AsOf = Literal["event", "hour", "day"]


class FeatureConfig(Settings):
    """A column as it is, owned by the table it stands in: the user's, the item's, or the context's.

    Encodings: ids take ``vocabulary`` (values seen at least `min_count` times in training) or ``hash`` into
    `buckets` rows; dense columns take ``piecewise_linear`` over at most `bins` quantiles, ``standardise`` or ``log1p``.

    A ``vector`` is a list of `width` numbers, such as an embedding of a text: each becomes a dense column of its own,
    named ``name[0]`` and so on, and requests give the whole list by its name.

    Policies: a null id is row 0, has its ``own`` row, or is refused; an id that training did not see is row 0, or one
    of `unknown_rows` rows by its hash; a null number takes the encoding's default or `fill`, or is refused; NaN counts
    as null, or is refused.
    """

    name: str
    kind: Literal["id", "id_list", "dense", "vector"] = "id"
    width: int | None = Field(default=None, ge=1, le=4096)
    separator: str | None = Field(default=None, min_length=1)
    """Of a list that is one text, such as ``drama|war``: what stands between its values."""
    encoding: Literal["vocabulary", "hash", "piecewise_linear", "standardise", "log1p"] | None = None
    min_count: int = Field(default=1, ge=1)
    buckets: int = Field(default=10_000, ge=2)
    bins: int = Field(default=24, ge=2, le=256)
    max_length: int = Field(default=20, ge=1)
    pooling: Literal["sum", "mean"] = "mean"
    nulls: Literal["default", "own", "refuse"] = "default"
    nans: Literal["missing", "refuse"] = "missing"
    fill: float | None = None
    unknown_rows: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _name_is_plain(self) -> "FeatureConfig":
        if "." in self.name:
            short = self.name.rpartition(".")[2] or "value"
            message = (
                f"feature {self.name!r}: names have no dots; for a field of a struct write "
                f"`columns: {{{short}: {self.name}}}` under the table, and the feature as {short!r}"
            )
            raise ValueError(message)
        if self.separator is not None and self.kind != "id_list":
            message = f"feature {self.name!r}: `separator` is for kind id_list"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _policies_fit_kind(self) -> "FeatureConfig":
        dense = self.kind in {"dense", "vector"}
        wrong = {
            "width": self.width is not None and self.kind != "vector",
            "fill": self.fill is not None and not dense,
            "nans": self.nans != "missing" and not dense,
            "nulls: own": self.nulls == "own" and (dense or self.encoding == "hash"),
            "unknown_rows": self.unknown_rows > 0 and (dense or self.encoding == "hash"),
        }
        named = [name for name, is_wrong in wrong.items() if is_wrong]
        if named:
            kinds = (
                "`width` is for kind vector; `fill` and `nans` for numbers; `nulls: own` and `unknown_rows` for ids "
                "with a vocabulary"
            )
            message = f"feature {self.name!r} of kind {self.kind!r} does not take {', '.join(named)}: {kinds}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _encoding_fits_kind(self) -> "FeatureConfig":
        if self.kind == "vector" and self.width is None:
            message = f"feature {self.name!r} is a vector: say how many numbers it has, such as width: 64"
            raise ValueError(message)
        allowed: dict[str, tuple[str, ...]] = {"dense": ("piecewise_linear", "standardise", "log1p")}
        allowed["vector"] = ("standardise",)
        encodings = allowed.get(self.kind, ("vocabulary", "hash"))
        if self.encoding is not None and self.encoding not in encodings:
            message = f"feature {self.name!r} of kind {self.kind!r} takes encoding {' or '.join(encodings)}"
            raise ValueError(message)
        return self


class CrossConfig(Settings):
    """The combination of two or more columns as one id, hashed into `buckets` rows; null if any of them is null.

    The columns may belong to different owners, such as the user's gender and the item's genre.
    """

    name: str
    of: tuple[str, ...] = Field(min_length=2)
    buckets: int = Field(default=10_000, ge=2)


class AggregateConfig(Settings):
    """Sums over earlier events of the same keys: for each column of `of` the `stats`, and one count of events.

    Only events strictly before the row count; with `as_of` ``hour`` or ``day``, only those up to the end of the last
    complete hour or day. ``smoothed`` is (sum + prior * m) / (n + prior), m being the column's mean over training rows;
    ``mean`` is sum / n, null without events. `since` adds the seconds since the last of these events.
    """

    by: tuple[str, ...] = Field(min_length=1)
    of: tuple[str, ...] = ()
    stats: tuple[Literal["smoothed", "mean", "sum"], ...] = ("smoothed",)
    count: bool = True
    since: bool = False
    windows: tuple[Window, ...] = ("all",)
    as_of: AsOf = "event"
    prior: float = Field(default=20.0, gt=0)
    bins: int = Field(default=24, ge=2, le=256)

    @model_validator(mode="after")
    def _windows_are_whole_tiles(self) -> "AggregateConfig":
        bad = [w for w in self.windows if self.as_of == "day" and w.endswith("h") and int(w[:-1]) % 24]
        if bad:
            message = f"window {bad[0]!r} of an aggregate as of the end of the day must be whole days, such as '1d'"
            raise ValueError(message)
        return self


class HistoryConfig(Settings):
    """The last values of a column in strictly earlier events of the same key, newest last.

    `columns` adds lists of other columns of the same events by name, place by place. Only events at least `gap` before
    the row count.
    """

    name: str
    of: str
    by: str
    last: int = Field(default=10, ge=1, le=200)
    where: str | None = None
    gap: Duration | None = None
    columns: dict[str, str] = {}
    shares: str | None = None
    """An id feature whose vocabulary and embedding this list uses."""
    min_count: int = Field(default=1, ge=1)
    pooling: Literal["sum", "mean"] = "mean"


class TaskConfig(Settings):
    """A label as an expression on columns; `where` restricts the task to the rows where it applies.

    With `within`, the label is final only that long after its event: younger rows do not train on it, and aggregates
    count an event's label only from then on. With `by` as well, the label is whether (regression: how often) a later
    event of the same keys, at most `within` after the row, satisfies the expression.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["binary", "regression"]
    label: str
    where: str | None = None
    weight: str | None = None
    unit: str = ""
    within: Duration | None = None
    by: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _later_events_need_a_window(self) -> "TaskConfig":
        if self.by and self.within is None:
            message = f"task {self.name!r} looks at later events by {', '.join(self.by)}; say how long with `within`"
            raise ValueError(message)
        return self


class NegativesConfig(Settings):
    """Items that a user did not take, for logs of positives: drawn per event, the same in every build.

    ``popularity`` draws items as often as the log has them. Items that the user has anywhere in the log are dropped.
    Sampled rows have label 0 in binary tasks and none in others; the column ``observed`` is 0 on them and 1 elsewhere.
    """

    per_event: int = Field(ge=1, le=100)
    by: Literal["uniform", "popularity"] = "uniform"


class SplitByTime(Settings):
    """The last `test` of the log's time, the `valid` before it, and the rest for training."""

    by: Literal["time"]
    valid: Duration
    test: Duration | None = None
    embargo: Duration | None = None
    """Rows that are less than this before the first row of the next split are left out."""


class SplitByUser(Settings):
    """Each user's rows in the order of time: the last go to test, those before them to valid.

    Below 1 a share of the user's rows; from 1 a number of rows, which leaves the last ones out.
    """

    by: Literal["user_time"]
    valid: float = Field(gt=0)
    test: float = Field(default=0, ge=0)
    embargo: Duration | None = None

    @model_validator(mode="after")
    def _shares_or_numbers(self) -> "SplitByUser":
        given = [value for value in (self.valid, self.test) if value]
        if not (all(value < 1 for value in given) or all(value.is_integer() for value in given)):
            message = (
                f"valid {self.valid:g} and test {self.test:g} must both be shares below 1, or whole numbers of rows"
            )
            raise ValueError(message)
        return self


class SplitByExpression(Settings):
    """Rows for which `test` holds, then rows for which `valid` holds, then training rows."""

    by: Literal["expression"]
    valid: str
    test: str | None = None
    embargo: Duration | None = None


class SplitByHash(Settings):
    """A random split, stable between builds: by the hash of the row's keys and time."""

    by: Literal["random"]
    valid: float = Field(gt=0, lt=1)
    test: float = Field(default=0, ge=0, lt=1)


SplitConfig = Annotated[SplitByTime | SplitByUser | SplitByExpression | SplitByHash, Field(discriminator="by")]


class ChecksConfig(Settings):
    """What is refused before training.

    A single column with an AUC (regression: rank correlation) of `leakage_at` or more on unseen rows is a leak unless
    `allow` names it; what is made of strictly earlier events alone never is. Optional bounds: the share of nulls of any
    feature, its drift against the last build (population stability index), and the range [lowest, highest] of features
    by name.
    """

    leakage: Literal["refuse", "warn", "off"] = "refuse"
    leakage_at: float = Field(default=0.99, gt=0.5, le=1)
    leakage_warn_at: float = Field(default=0.95, gt=0.5, le=1)
    """From here on a feature is told of: it may know the label, or be a good one."""
    allow: tuple[str, ...] = ()
    max_null_rate: float | None = Field(default=None, ge=0, le=1)
    max_psi: float | None = Field(default=None, gt=0)
    ranges: dict[str, tuple[float, float]] = {}


class FeaturesConfig(Settings):
    """Everything that turns raw Parquet into training rows and online tables."""

    events: EventsConfig
    labels: tuple[LabelTableConfig, ...] = ()
    users: EntityConfig | None = None
    items: EntityConfig | None = None
    past: PastConfig | None = None
    features: tuple[FeatureConfig, ...] = ()
    crosses: tuple[CrossConfig, ...] = ()
    aggregates: tuple[AggregateConfig, ...] = ()
    histories: tuple[HistoryConfig, ...] = ()
    negatives: NegativesConfig | None = None
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    split: SplitConfig
    checks: ChecksConfig = ChecksConfig()
    engine: Literal["duckdb", "spark"] = "duckdb"
    spark_master: str = "local[*]"
    """The master URL of the cluster that runs the expressions with `engine` ``spark``."""
    memory_limit: str = "3GB"
    threads: int | None = Field(default=None, ge=1)
    seed: int = 0
    incremental: bool = True
    """Keep the rows of built days beside the result, so that the next build only adds new days."""
    grow: bool = False
    """Keep the numbers fitted by the last build in this place; vocabularies only gain values, in new rows."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeaturesConfig":
        names = [f.name for f in self.features] + [c.name for c in self.crosses] + [h.name for h in self.histories]
        names += [name for history in self.histories for name in history.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        tasks = [t.name for t in self.tasks]
        twice += sorted({name for name in tasks if tasks.count(name) > 1})
        if twice:
            message = f"names used twice: {', '.join(twice)}; give each feature and task its own name"
            raise ValueError(message)
        self._check_labels()
        if not (self.features or self.crosses or self.aggregates or self.histories):
            message = "no features: list at least one under `features`, `crosses`, `aggregates` or `histories`"
            raise ValueError(message)
        return self

    def _check_labels(self) -> None:
        """A task made of a later row must say when its label is final, or aggregates would see it too early."""
        for task in self.tasks:
            for table in self.labels:
                if table.within and not task.within and re.search(rf"\b{table.name}(_\w+)?\b", task.label):
                    message = (
                        f"task {task.name!r} is made of labels {table.name!r}, which come up to {table.within} after "
                        f"the event; give the task `within: {table.within}`, too: nothing may see its label earlier"
                    )
                    raise ValueError(message)
