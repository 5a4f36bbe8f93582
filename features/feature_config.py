"""The `data:` block of a recipe: sources, features, point-in-time aggregates, histories, tasks and the split."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contract.durations import Duration
from contract.settings import Settings
from features.split_config import SplitConfig
from features.table_config import EntityConfig, EventsConfig, LabelTableConfig, PastConfig, TableConfig

Window = Annotated[str, Field(pattern=r"^(all|[1-9][0-9]*[hd])$")]
AsOf = Literal["event", "hour", "day"]


class FeatureConfig(Settings):
    """A column as it is. It belongs to the table in which it stands: the user's, the item's, or the context's."""

    name: str
    """The feature's name, and the column's."""
    kind: Literal["id", "id_list", "dense", "vector"] = "id"
    """What the column holds: one id, a list of ids, a number, or a list of `width` numbers, such as the embedding of a
    text. Each number of a ``vector`` becomes a dense feature, named ``name[0]`` and so on; requests give the whole list
    by its name."""
    width: int | None = Field(default=None, ge=1, le=4096)
    """How many numbers a ``vector`` has."""
    separator: str | None = Field(default=None, min_length=1)
    """Of a list that is one text, such as ``drama|war``: what stands between its values."""
    encoding: Literal["vocabulary", "hash", "piecewise_linear", "standardise", "log1p"] | None = None
    """Ids: ``vocabulary`` (the default) or ``hash``. Numbers: ``piecewise_linear`` over quantiles (the default),
    ``standardise`` or ``log1p``."""
    min_count: int = Field(default=1, ge=1)
    """How often an id must occur in training rows to be in the vocabulary."""
    unseen_days: int | None = Field(default=None, ge=1)
    """Ids that no training row of the last so many days holds leave the vocabulary; with `grow`, at the next build
    without it. Null: none leaves."""
    buckets: int = Field(default=10_000, ge=2)
    """Rows of the embedding table with ``hash``."""
    bins: int = Field(default=24, ge=2, le=256)
    """The most quantile bins with ``piecewise_linear``."""
    max_length: int = Field(default=20, ge=1)
    """How many values of a list count: the last ones."""
    pooling: Literal["sum", "mean"] = "mean"
    """How the embeddings of a list become one."""
    nulls: Literal["default", "own", "refuse"] = "default"
    """What a null is: an id's row 0 or a number's default, a row of its ``own``, or an error."""
    nans: Literal["missing", "refuse"] = "missing"
    """Whether NaN counts as null or is an error."""
    fill: float | None = None
    """The number that a null becomes."""
    unknown_rows: int = Field(default=0, ge=0)
    """Over how many rows ids that training did not see are spread, by their hash; 0: all are row 0."""

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
            "unseen_days": self.unseen_days is not None and (dense or self.encoding == "hash"),
            "unknown_rows": self.unknown_rows > 0 and (dense or self.encoding == "hash"),
        }
        named = [name for name, is_wrong in wrong.items() if is_wrong]
        if named:
            kinds = (
                "`width` is for kind vector; `fill` and `nans` for numbers; `nulls: own`, `unknown_rows` and "
                "`unseen_days` for ids with a vocabulary"
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
    """The combination of two or more columns as one hashed id; null if any of them is null.

    The columns may belong to different owners, such as the user's gender and the item's genre.
    """

    name: str
    """The feature's name."""
    of: tuple[str, ...] = Field(min_length=2)
    """The columns that are combined."""
    buckets: int = Field(default=10_000, ge=2)
    """Rows of the embedding table."""


class AggregateConfig(Settings):
    """Sums over earlier events of the same key, and how many events there were.

    Only events strictly before the row count.
    """

    by: tuple[str, ...] = Field(min_length=1)
    """The columns whose values together make the key."""
    of: tuple[str, ...] = ()
    """What to sum, besides the count of events: columns of numbers, or names of `tasks`. A task counts by its label,
    from the moment on at which that is final (`within`)."""
    stats: tuple[Literal["smoothed", "mean", "sum"], ...] = ("smoothed",)
    """What to make of each of these sums: ``smoothed`` is (sum + prior * m) / (n + prior), m being the column's mean
    over training rows; ``mean`` is sum / n, null without events."""
    count: bool = True
    """Whether the number of events is a feature too."""
    since: bool = False
    """Whether the seconds since the last of these events are a feature too."""
    windows: tuple[Window, ...] = ("all",)
    """How far back to look: ``all``, hours such as ``6h`` or days such as ``7d``."""
    as_of: AsOf = "event"
    """Up to when events count. ``event``: everything strictly before the row. ``hour`` or ``day``: only up to the end
    of the last complete one, which online tables can know between two builds: a request sees what training saw."""
    prior: float = Field(default=20.0, gt=0)
    """How many events the mean `m` counts for in ``smoothed``."""
    bins: int = Field(default=24, ge=2, le=256)
    """The most quantile bins for each of these features."""

    @model_validator(mode="after")
    def _windows_are_whole_tiles(self) -> "AggregateConfig":
        bad = [w for w in self.windows if self.as_of == "day" and w.endswith("h") and int(w[:-1]) % 24]
        if bad:
            message = f"window {bad[0]!r} of an aggregate as of the end of the day must be whole days, such as '1d'"
            raise ValueError(message)
        return self


class HistoryConfig(Settings):
    """The last values of a column in strictly earlier events of the same key, newest last."""

    name: str
    """The feature's name."""
    of: str
    """The column whose values are collected."""
    by: str
    """The column whose value is the key."""
    last: int = Field(default=10, ge=1, le=200)
    """The most values."""
    where: str | None = None
    """A condition on events; others do not count."""
    gap: Duration | None = None
    """How long before the row an event must have happened to count."""
    columns: dict[str, str] = {}
    """Lists of other columns of the same events: by name, the column; all lists of a row are equally long."""
    elapsed: str | None = None
    """The name of one more list: how long before the row each event happened, as the whole power of two of seconds (0
    below two seconds, 11 for an hour, 16 for a day). In online tables it is as of the end of their last day; a request
    may bring its own."""
    shares: str | None = None
    """An id feature whose vocabulary and embedding this list uses: with the candidate's own id, an item in the list and
    the candidate are one vector, which is learned from both."""
    min_count: int = Field(default=1, ge=1)
    """How often an id must occur in training rows to be in the vocabulary."""
    unseen_days: int | None = Field(default=None, ge=1)
    """Ids that no training row of the last so many days holds leave the vocabulary; with `grow`, at the next build
    without it. Null: none leaves."""
    pooling: Literal["sum", "mean"] = "mean"
    """How the embeddings of a list become one."""

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of all its lists, which are equally long."""
        return (self.name, *self.columns, *([] if self.elapsed is None else [self.elapsed]))


class TaskConfig(Settings):
    """What to predict."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The task's name."""
    kind: Literal["binary", "regression"]
    """Whether the answer is a probability or a number."""
    label: str
    """An expression on columns."""
    where: str | None = None
    """A condition on rows; the task does not train on others, nor is it measured on them."""
    weight: str | None = None
    """An expression for the weight of a row."""
    unit: str = ""
    """The unit of the label, for reports."""
    within: Duration | None = None
    """How long after its event a label is final: younger rows do not train on it, and aggregates count an event's label
    only from then on."""
    by: tuple[str, ...] = ()
    """With it, the label is whether (regression: how often) a later event with the same values in these columns, at
    most `within` after the row, satisfies the expression."""

    @model_validator(mode="after")
    def _later_events_need_a_window(self) -> "TaskConfig":
        if self.by and self.within is None:
            message = f"task {self.name!r} looks at later events by {', '.join(self.by)}; say how long with `within`"
            raise ValueError(message)
        return self


class NegativesConfig(Settings):
    """Items that a user did not take, for logs of positives only; every build draws the same ones.

    Items that the user has anywhere in the log are not drawn. Sampled rows have label 0 in binary tasks and none in
    others; the column ``observed`` is 0 on them and 1 elsewhere.
    """

    per_event: int = Field(ge=1, le=100)
    """Negatives for each event."""
    by: Literal["uniform", "popularity"] = "uniform"
    """``popularity`` draws items as often as the log has them."""


class ChecksConfig(Settings):
    """What is refused before training.

    Features that are made of strictly earlier events alone are never searched for leaks.
    """

    leakage: Literal["refuse", "warn", "off"] = "refuse"
    """What to do about a leak: a column that alone predicts a label almost perfectly on unseen rows."""
    leakage_at: float = Field(default=0.99, gt=0.5, le=1)
    """The AUC (regression: rank correlation) from which on a column is a leak."""
    leakage_warn_at: float = Field(default=0.95, gt=0.5, le=1)
    """From this value on a feature is reported: it may know the label, or simply be a good one."""
    allow: tuple[str, ...] = ()
    """Features that may predict a label so well, by name."""
    max_null_rate: float | None = Field(default=None, ge=0, le=1)
    """The largest share of nulls that a feature may have."""
    max_psi: float | None = Field(default=None, gt=0)
    """The largest drift of a feature against the last build, as population stability index."""
    ranges: dict[str, tuple[float, float]] = {}
    """The smallest and the largest value that a feature may have, by name."""


class FeaturesConfig(Settings):
    """Everything that turns raw Parquet into training rows and online tables."""

    events: EventsConfig
    """The log."""
    labels: tuple[LabelTableConfig, ...] = ()
    """Tables of what came of events."""
    users: EntityConfig | None = None
    """Attributes of users."""
    items: EntityConfig | None = None
    """Attributes of items."""
    past: PastConfig | None = None
    """Events from before the log, without times: aggregates and histories count them, and they never train."""
    features: tuple[FeatureConfig, ...] = ()
    """Columns that are features as they are."""
    crosses: tuple[CrossConfig, ...] = ()
    """Combinations of columns as features."""
    aggregates: tuple[AggregateConfig, ...] = ()
    """Counts, rates and sums over earlier events as features."""
    histories: tuple[HistoryConfig, ...] = ()
    """Lists of earlier events as features."""
    negatives: NegativesConfig | None = None
    """Items to draw as negatives; null: none."""
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    """What to predict."""
    split: SplitConfig
    """Which rows train, validate and test."""
    checks: ChecksConfig = ChecksConfig()
    """What is refused before training."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What runs the expressions."""
    spark_master: str = "local[*]"
    """The master URL of the cluster that runs the expressions with `engine` ``spark``."""
    memory_limit: str = "3GB"
    """How much memory DuckDB may use before it writes to disk."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of DuckDB; null: one for each core."""
    seed: int = 0
    """Of random splits and sampled negatives."""
    incremental: bool = True
    """Keep the rows of built days beside the result, so that the next build only adds new days."""
    grow: bool = False
    """Keep the numbers fitted by the last build in this place; vocabularies only gain values, in new rows."""

    def tables(self) -> Iterator[tuple[str, TableConfig]]:
        """The tables, by the key of this block that names them."""
        yield "events", self.events
        yield from ((f"labels[{place}]", table) for place, table in enumerate(self.labels))
        named = (("users", self.users), ("items", self.items), ("past", self.past))
        yield from ((name, table) for name, table in named if table is not None)

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
        if self.events.served and (self.negatives or self.engine != "duckdb"):
            message = (
                "events.served has its own negatives, the candidates that nothing came of, and needs engine duckdb"
            )
            raise ValueError(message)
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
