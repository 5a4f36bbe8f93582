"""Guess what there is to predict: of a log's own columns, of kinds of events, or of a table of what came of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from contract.errors import ConfigError
from features.source.expressions import compile_expression
from features.source.functions import epoch_ms
from features.source.profile import ColumnProfile
from features.source.query_engine import scalar
from pipeline.project import column_words as words
from pipeline.project.guess_features import Names
from pipeline.project.guess_roles import BinaryLabel, Roles
from pipeline.project.guess_times import find_moment
from pipeline.project.match_keys import RawTable, match_key
from pipeline.project.recipe_text import flow

DAY_MS = 86_400_000
_STEPS = ("10m", "1h", "6h", "1d", "2d", "3d", "7d", "14d", "30d")
STEP_MS = {step: int(step[:-1]) * {"m": 60_000, "h": 3_600_000, "d": DAY_MS}[step[-1]] for step in _STEPS}
_PLAIN_UP_TO = 20
"""Numbers up to it, such as stars, are predicted as they are, larger ones on a logarithmic scale."""


@dataclass(frozen=True)
class Task:
    """Something to predict, and the columns of the log that it reads, which cannot be features."""

    name: str
    kind: str
    label: str
    where: str = ""
    by: tuple[str, ...] = ()
    unit: str = ""
    within: str = ""
    reads: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As the recipe has it."""
        parts: dict[str, object] = {"name": self.name, "kind": self.kind, "label": self.label}
        for name in ("where", "by", "within", "unit"):
            if getattr(self, name):
                parts[name] = getattr(self, name)
        return f"    - {flow(parts)}"

    @property
    def lag_ms(self) -> int:
        """How long after its event the label is final."""
        return STEP_MS.get(self.within, 0)


@dataclass(frozen=True)
class LabelTable:
    """The line of a recipe's `labels`, and how many of what came of events it finds."""

    line: str
    share: float


def log_tasks(log: RawTable, roles: Roles, names: Names, longest_ms: float) -> list[Task]:
    """The tasks that the log itself has labels for; a label may come up to `longest_ms` after its event."""
    shown = shown_rows(log, roles)
    tasks = [_binary_task(label, names) for label in roles.binary if shown.columns[label.column].distinct > 1]
    measures = [shown.columns[path] for path in roles.measures]
    tasks += [_measure(names, c) for c in measures if c.distinct > 1 and not _is_attribute(shown, roles, c.path)]
    if roles.event_type is not None:
        tasks = [*_type_tasks(log, roles, names, longest_ms), *tasks]
    return tasks


def shown_rows(log: RawTable, roles: Roles) -> RawTable:
    """The rows that are predicted: not those of later events, which have columns of their own."""
    if roles.event_type is None or not roles.event_type.later or not roles.times_keys:
        return log
    return log.only(f"{roles.event_type.column} not in [{', '.join(map(repr, roles.event_type.later))}]")


def _binary_task(label: BinaryLabel, names: Names) -> Task:
    name = names.take(words.plain(label.name or label.column))
    text = label.column if label.yes is None else f"{label.column} == {label.yes}"
    return Task(name, "binary", text, reads=(label.column,))


def _measure(names: Names, column: ColumnProfile) -> Task:
    """A number to predict; what is large and never negative is judged on a logarithmic scale."""
    name = names.take(words.plain(column.title))
    if column.low is not None and column.low >= 0 and column.high > _PLAIN_UP_TO:
        return Task(name, "regression", f"log1p({column.path})", unit=f"log1p {name}", reads=(column.path,))
    return Task(name, "regression", column.path, reads=(column.path,))


def _is_attribute(log: RawTable, roles: Roles, path: str) -> bool:
    """Whether a number is the same in all rows of an item or of a user, such as a film's duration."""
    for key in roles.keys:
        rows = log.table.select(key=log.value(key), value=log.value(path))
        rows = rows.filter(rows["key"].notnull() & rows["value"].notnull())
        spread = rows.group_by("key").aggregate(rows=rows.count(), values=rows["value"].nunique())
        several = spread.filter(spread["rows"] > 1)
        if int(scalar(log.connection, several.count())) and int(scalar(log.connection, several["values"].max())) == 1:
            return True
    return False


def _type_tasks(log: RawTable, roles: Roles, names: Names, longest_ms: float) -> Iterator[Task]:
    """Kinds of events that answer what was shown are labels of their row; later ones, of an earlier row."""
    kind = roles.event_type
    if kind is None:
        return
    column, later = kind.column, kind.later if roles.times_keys else ()
    now = f"{column} not in [{', '.join(map(repr, later))}]" if later else ""
    answered = kind.answered if later else (*kind.answered, *kind.later)
    for value in answered:
        yield Task(names.take(words.plain(value)), "binary", f"{column} == {value!r}", now, reads=(column,))
    for value in later:
        within = _within(log, roles, value, longest_ms)
        keys = tuple(roles.keys)
        yield Task(
            names.take(words.plain(value)),
            "binary",
            f"{column} == {value!r}",
            now,
            keys,
            within=within,
            reads=(column,),
        )


def _within(log: RawTable, roles: Roles, value: str, longest_ms: float) -> str:
    """How long after an event of the same keys nine of ten of the later events have come."""
    kind = compile_expression(roles.event_type.column if roles.event_type else "", log.table, log.path)
    keys = {f"key_{n}": log.value(key) for n, key in enumerate(roles.keys)}
    dated = log.table.select(**keys, ms=moment_ms(log, roles), kind=kind)
    shown, late = dated.filter(dated["kind"] != value), dated.filter(dated["kind"] == value)
    first = shown.group_by(list(keys)).aggregate(first=shown["ms"].max())
    both = late.inner_join(first, list(keys))
    gap = both.filter(both["ms"] > both["first"])
    return round_up(scalar(log.connection, (gap["ms"] - gap["first"]).quantile(0.9)), longest_ms)


def moment_ms(log: RawTable, roles: Roles) -> ir.Value:
    """The log's moments in milliseconds since 1970."""
    return epoch_ms(log.value(roles.time.value if roles.time else "")).cast("int64")


def round_up(ms: float | None, longest_ms: float) -> str:
    """The shortest of some lengths of time that reaches so far, but none longer than another."""
    fits = [step for step in _STEPS if STEP_MS[step] <= max(longest_ms, STEP_MS[_STEPS[0]])]
    return next((step for step in fits if ms is not None and STEP_MS[step] >= ms), fits[-1])


def label_tasks(
    log: RawTable, outcomes: RawTable, roles: Roles, names: Names, longest_ms: float
) -> tuple[list[Task], LabelTable]:
    """What came of events, from a table of its own.

    Raises:
        ConfigError: the table has no column whose values the log has, too.
    """
    keys = _shared_keys(log, outcomes, roles)
    name = names.take(words.plain(outcomes.word), f"{words.plain(outcomes.word)}_came")
    parts: dict[str, object] = {"name": name, "path": outcomes.path}
    casts = {column: key for column, key in keys.items() if column != key}
    if casts:
        parts["columns"] = casts
    parts["by"] = list(keys)
    moment = find_moment(c for c in outcomes.columns.values() if c.path not in keys.values()) if roles.time else None
    within, share = "", 1.0
    if moment is not None:
        within, share = _delay(log, outcomes, roles, keys, moment.value, longest_ms)
        if moment.expression:
            parts["columns"] = casts | {"came_at": moment.expression}
        parts["time"] = "came_at" if moment.expression else moment.column.replace("`", "")
        if moment.times:
            option, _, value = moment.times.partition(": ")
            parts["times"] = {moment.column.replace("`", ""): {option: value}}
        parts["within"] = within
    tasks = [Task(name, "binary", name, within=within)]
    for column in outcomes.columns.values():
        if column.path not in (*keys.values(), moment.column if moment else "") and _is_size(column):
            plain = column.title.isidentifier() and column.path == column.title
            source = column.title if plain else words.plain(column.title, "c")
            if not plain:
                parts["columns"] = {**parts.get("columns", {}), source: column.path}  # type: ignore[dict-item]
            full = f"{name}_{source}"
            task = names.take(words.plain(full))
            tasks.append(Task(task, "regression", f"log1p({full})", name, unit=f"log1p {task}", within=within))
    return tasks, LabelTable(f"    - {flow(parts)}", share)


def _is_size(column: ColumnProfile) -> bool:
    """Whether a column of a table of outcomes says how much came, and not of what."""
    name = words.snake(column.title)
    measured = words.MEASURE.search(name) or words.WEAK_MEASURE.search(name) or not column.dtype.is_integer()
    number = column.dtype.is_numeric() and not column.is_nested and not words.NAME_OF.search(name)
    return bool(number and measured and column.distinct > 2 and column.low is not None and column.low >= 0)  # noqa: PLR2004


def _shared_keys(log: RawTable, outcomes: RawTable, roles: Roles) -> dict[str, str]:
    """By column of the log, the expression that has its value in the table."""
    same = {words.snake(c.title): c.path for c in outcomes.columns.values()}
    unique = [c for c in log.columns.values() if c.is_unique and words.snake(c.title) in same]
    chosen = [(c.path, same[words.snake(c.title)]) for c in unique[:1]]
    if not chosen:
        pair = match_key(log, outcomes, ())
        if pair is not None and log.columns[pair.column].is_unique:
            chosen = [(pair.column, f"{pair.cast}({pair.key})" if pair.cast else pair.key)]
    if not chosen:
        chosen = [(key, same[words.snake(key)]) for key in roles.keys if words.snake(key) in same]
    if not chosen:
        there = ", ".join(c.title for c in outcomes.columns.values())
        message = f"--labels {outcomes.path} shares no key with the log; its columns are {there}"
        raise ConfigError(message)
    return {column.replace("`", ""): key for column, key in chosen}


def _delay(
    log: RawTable, outcomes: RawTable, roles: Roles, keys: dict[str, str], moment: str, longest_ms: float
) -> tuple[str, float]:
    """How long to wait for what comes of an event, and what share of it has come by then."""
    here = {f"key_{n}": log.table[column] for n, column in enumerate(keys)}
    there = {f"key_{n}": outcomes.value(key) for n, key in enumerate(keys.values())}
    dated = log.table.select(**here, begin=moment_ms(log, roles))
    came = outcomes.table.select(**there, end=epoch_ms(outcomes.value(moment)).cast("int64"))
    both = came.inner_join(dated, list(here))
    gap = both.filter(both["end"] >= both["begin"])
    gap = gap.group_by([*here, "end"]).aggregate(ms=(gap["end"] - gap["begin"]).min())
    within = round_up(scalar(log.connection, gap["ms"].quantile(0.99)), longest_ms)
    by_then = ibis.ifelse(gap["ms"] <= STEP_MS[within], 1.0, 0.0).mean()
    return within, float(scalar(log.connection, by_then) or 0.0)


def label_columns(tasks: Sequence[Task]) -> set[str]:
    """The columns of the log that labels are made of."""
    return {column for task in tasks for column in task.reads}
