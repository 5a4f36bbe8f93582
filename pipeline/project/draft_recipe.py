"""Draft a project's file from raw tables: a commented YAML that trains as it is."""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import ConfigError, DataError
from features.source.data_files import find_files
from features.source.filesystems import filesystem_of
from features.source.query_engine import Backend, connect, disconnect, to_arrow
from features.source.tables import read_table
from features.source.verify_parquet import check_files
from features.table_config import TableConfig
from pipeline.project import column_words as words
from pipeline.project.guess_features import (
    GuessedFeature,
    LeftOut,
    Names,
    calendar_columns,
    guess_features,
    left_out_note,
)
from pipeline.project.guess_roles import Roles, guess_roles
from pipeline.project.guess_tasks import DAY_MS, Task, label_columns, label_tasks, log_tasks, moment_ms, shown_rows
from pipeline.project.guess_times import read_as
from pipeline.project.match_keys import KeyPair, RawTable, match_key
from pipeline.project.recipe_text import feature_lines, flow

SCHEMA_FILE = "moerank.schema.json"
_UNITS = (("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_LEAST_PART = 0.03
"""The least share of events to train on, to validate on and to judge."""
MODEL = "{members: 3, experts: 2, expert_widths: [64, 32], gate: {name: softmax}}"
TRAIN = "{learning_rate: 2.0e-3, embedding_learning_rate: 0.05}"
"""What a project begins with: on four tables better than empty blocks, at less cost (benchmarks/bounds.md)."""
_LATE_PART = 3
"""Labels that come later than this part of the log leave too few rows to train on."""


@dataclass(frozen=True)
class RawPaths:
    """Where the tables of a project to be lie."""

    events: str
    users: str | None = None
    items: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Draft:
    """What is written: the lines of the recipe by block, and what was left out and why."""

    name: str
    blocks: dict[str, list[str]]
    features: list[GuessedFeature]
    tasks: list[Task]
    keys: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def optional(self) -> set[str]:
        """The features that can be left out: all but the keys."""
        return {feature.name for feature in self.features} - set(self.keys)

    def without(self, names: Collection[str], why: str) -> "Draft":
        """The draft without some features."""
        kept = [feature for feature in self.features if feature.name not in names]
        return replace(self, features=kept, notes=[*self.notes, f"left out, because {why}: {', '.join(sorted(names))}"])

    def text(self) -> str:
        """The file."""
        blocks = self.blocks
        lines = [
            f"# yaml-language-server: $schema={SCHEMA_FILE}",
            f"name: {flow(self.name)}",
            "data:",
            *blocks["tables"],
            "  features:  # names of something are ids, sizes are dense; remove what is not known when a request comes",
            *feature_lines(self.features),
            *(f"    # {note}" for note in self.notes),
            *blocks["past"],
            "  tasks:  # what to predict, of rows for which `where` holds",
            *(task.line for task in self.tasks),
            *blocks["split"],
            f"model: {MODEL}  # a start for any table; a larger one: docs/models.md",
            f"train: {TRAIN}  # epochs and batch follow from the number of rows",
        ]
        return "\n".join(lines) + "\n"


def draft_recipe(paths: RawPaths, name: str, labels: Sequence[str] = (), *, positives: bool = False) -> Draft:
    """The draft of a project's file; `labels` are columns of the log, where they are not to be guessed.

    With `positives` every row is something that the user took, and what was not taken is drawn.

    Raises:
        ConfigError: no label can be guessed, or one that was named is not a column; tables that share no key.
        DataError: a table that cannot be read.
    """
    with tempfile.TemporaryDirectory() as spill:
        connection = connect("1GB", Path(spill))
        try:
            return _Drafter(connection, paths).draft(name, labels, positives=positives)
        except duckdb.Error as error:
            message = f"the tables cannot be read: {str(error).splitlines()[0]}"
            raise DataError(message) from error
        finally:
            disconnect(connection)


class _Drafter:
    """The tables of a draft, and the names that its columns have taken."""

    def __init__(self, connection: Backend, paths: RawPaths) -> None:
        self._paths = paths
        self._log = _open(connection, paths.events, "data.events")
        opened = {side: _open(connection, p, f"data.{side}s") for side, p in _sides(paths) if p is not None}
        self._entities: dict[str, RawTable] = opened
        self._outcomes = None if paths.labels is None else _open(connection, paths.labels, "data.labels[0]")
        self._names = Names(self._log.names)
        self._tasks = Names(())

    def draft(self, name: str, labels: Sequence[str], *, positives: bool) -> Draft:
        pairs = self._pairs()
        roles = guess_roles(self._log.columns, pairs.get("user"), pairs.get("item"), labels)
        span = _span(self._log, roles)
        tasks, label_lines = self._find_tasks(roles, span, positives=positives)
        keys = {key: self._key_name(key) for key in roles.keys}
        tasks = [replace(task, by=tuple(keys[key] for key in task.by)) for task in tasks]
        features = [GuessedFeature(keys[key], key, "id", {"min_count": 2}) for key in roles.keys]
        used = {*roles.keys, *label_columns(tasks), *([roles.time.column] if roles.time else [])}
        shown = shown_rows(self._log, roles)
        calendar = calendar_columns(shown, roles.time.value, shown.columns.values()) - used if roles.time else set()
        own, left_out = guess_features(shown, used | calendar, self._names)
        left_out += [LeftOut(path.replace("`", ""), "only tells the time") for path in sorted(calendar)]
        time, clock = self._clock(roles)
        tables = [*self._events(roles, keys, own, time, clock), *label_lines]
        features += own
        for side, table in self._entities.items():
            lines, more, others = self._entity(side, table, pairs[side])
            tables += lines
            features += more
            left_out += others
        features += [GuessedFeature(c, c, "id") for c in clock]
        blocks = {"tables": tables, "past": _past_lines(tasks, keys, roles, span, positives=positives)}
        blocks["split"] = [f"  split: {_split(span, roles, tasks)}"]
        note = left_out_note(left_out)
        return Draft(name, blocks, features, tasks, tuple(keys.values()), [note] if note else [])

    def _pairs(self) -> dict[str, KeyPair]:
        pairs: dict[str, KeyPair] = {}
        for side, table in self._entities.items():
            taken = next((pair.column for pair in pairs.values()), None)
            patterns = words.USERS if side == "user" else words.ITEMS
            pair = match_key(self._log, table, patterns, taken)
            if pair is None:
                here, there = (", ".join(c.title for c in t.columns.values()) for t in (self._log, table))
                message = (
                    f"--{side}s {table.path}: no column has the values of one of the log: {there}; the log: {here}"
                )
                raise ConfigError(message)
            pairs[side] = pair
        return pairs

    def _find_tasks(self, roles: Roles, span: "LogSpan", *, positives: bool) -> tuple[list[Task], list[str]]:
        if positives:
            return [Task("taken", "binary", "observed == 1")], []
        longest = span.ms / _LATE_PART
        if self._outcomes is None:
            tasks, lines = log_tasks(self._log, roles, self._tasks, longest), []
        else:
            free = Names(self._log.names)
            tasks, table = label_tasks(self._log, self._outcomes, roles, free, longest)
            share = f"; {table.share:.0%} of them come within that time" if tasks[0].within else ""
            lines = [f"  labels:  # what came of events, each by its own row{share}", table.line]
        if not tasks:
            there = ", ".join(c.title for c in self._log.columns.values())
            message = (
                f"no label could be guessed; name one or more: --label COLUMN, out of {there}; or say --positives, "
                "where each row is something that the user took"
            )
            raise ConfigError(message)
        return tasks, lines

    def _key_name(self, path: str) -> str:
        """The key as the recipe calls it."""
        title = path.replace("`", "")
        return title if title.isidentifier() else self._names.take(words.plain(title, "key"))

    def _clock(self, roles: Roles) -> tuple[str, dict[str, str]]:
        """The recipe's name for the time, and the columns that the time of day and of the week become."""
        if roles.time is None:
            return "", {}
        title = roles.time.column.replace("`", "")
        time = self._names.take("at", "event_time", "moment") if roles.time.expression else title
        written = time if roles.time.expression else roles.time.column
        named = {"hour": self._names.take("hour", "hour_of_day"), "weekday": self._names.take("weekday", "day_of_week")}
        return time, {name: f"{function}({written})" for function, name in named.items()}

    def _events(
        self, roles: Roles, keys: dict[str, str], own: list[GuessedFeature], time: str, clock: dict[str, str]
    ) -> list[str]:
        lines = ["  events:", f"    path: {flow(self._paths.events)}"]
        named = {"user": roles.user, "item": roles.item}
        lines += [f"    {role}: {flow(keys[key])}" for role, key in named.items() if key is not None]
        columns = {name: path for path, name in keys.items() if name != path.replace("`", "")}
        if roles.time is not None:
            lines.append(f"    time: {flow(time)}")
            option, _, value = roles.time.times.partition(": ")
            if option:
                said = "  # whose clocks the times show" if option == "zone" else ""
                lines.append(f"    times: {flow({time: {option: value}})}{said}")
            if roles.time.expression:
                columns[time] = roles.time.expression
        columns |= _derived(own) | clock
        if columns:
            lines.append(f"    columns: {flow(columns)}")
        if roles.time is not None and roles.time.has_nulls:
            lines.append(f"    where: {flow(f'not is_null({time if roles.time.expression else roles.time.column})')}")
        return lines

    def _entity(
        self, side: str, table: RawTable, pair: KeyPair
    ) -> tuple[list[str], list[GuessedFeature], list[LeftOut]]:
        features, left_out = guess_features(table, [pair.key], self._names, side)
        self._names.add(table.names)
        title = pair.key.replace("`", "")
        columns = _derived(features)
        key = title if title.isidentifier() and not pair.cast else self._names.take(f"{side}_key")
        if key != title:
            columns = {key: f"{pair.cast}({pair.key})" if pair.cast else pair.key, **columns}
        lines = [f"  {side}s:", f"    path: {flow(table.path)}", f"    key: {flow(key)}"]
        if columns:
            lines.append(f"    columns: {flow(columns)}")
        profile = table.columns[pair.key]
        if profile.nulls:
            lines.append(f"    where: {flow(f'not is_null({pair.key})')}")
        if profile.distinct + profile.nulls < profile.rows:
            lines.append(
                f"    newest: {flow(_newest(table, pair))}  # of several rows of a key, the one where this is largest"
            )
        return lines, features, left_out


def _sides(paths: RawPaths) -> list[tuple[str, str | None]]:
    return [("user", paths.users), ("item", paths.items)]


def _open(connection: Backend, path: str, where: str) -> RawTable:
    table = read_table(connection, TableConfig(path=path, verify=False), where, set())
    # Also of columns that were left out, because two are spelled alike.
    schemas = check_files(find_files(path, where)[:1], filesystem_of(path), where, pages=False)
    return RawTable.look_at(connection, path, table, [*schemas[0].names, *table.columns])


def _derived(features: Sequence[GuessedFeature]) -> dict[str, str]:
    return {f.name: f.path for f in features if f.name != f.path.replace("`", "")}


def _newest(table: RawTable, pair: KeyPair) -> str:
    """The column that tells the newest of a key's rows: a time whose order is that of its values, or else any."""
    others = [c for c in table.columns.values() if c.path != pair.key and not c.is_nested and c.distinct > 1]
    times = [c for c in others if (moment := read_as(c)) is not None and not moment.expression]
    changed = [c for c in times if words.CHANGED.search(words.snake(c.title))]
    return next((c.title for c in [*changed, *times, *others]), pair.key.replace("`", ""))


@dataclass(frozen=True)
class LogSpan:
    """The log's moments in order, in milliseconds since 1970; without times none."""

    moments: pa.ChunkedArray

    @property
    def ms(self) -> float:
        """Its length."""
        return float(pc.max(self.moments).as_py() - pc.min(self.moments).as_py()) if len(self.moments) else 0.0

    def lasts(self, share: float) -> float:
        """How long before the end that share of the events begins."""
        begin = pc.quantile(self.moments, 1 - share).to_pylist()[0]
        return float(pc.max(self.moments).as_py() - begin)

    def rows(self, longest: float, shortest: float) -> float:
        """The share of events that lie between two times before the end."""
        before = pc.subtract(pc.max(self.moments), self.moments)
        fits = pc.and_(pc.less(before, longest), pc.greater_equal(before, shortest))
        return float(pc.mean(fits.cast(pa.int8())).as_py())


def _span(log: RawTable, roles: Roles) -> LogSpan:
    if roles.time is None:
        return LogSpan(pa.chunked_array([], pa.int64()))
    return LogSpan(to_arrow(log.connection, log.table.select(ms=moment_ms(log, roles)))["ms"].drop_null())


def _split(span: LogSpan, roles: Roles, tasks: Sequence[Task]) -> str:
    """The last tenths of the log's events; where labels come late, the test begins so much earlier."""
    if len(span.moments) and span.lasts(0.1) > 0:
        unit, each = next(((u, ms) for u, ms in _UNITS if span.ms >= 10 * ms), _UNITS[-1])
        test, both = (max(1, round(span.lasts(share) / each)) for share in (0.1, 0.2))
        valid, late = max(1, both - test), -(-max(task.lag_ms for task in tasks) // each)
        test += late
        parts = span.rows(test * each, 0), span.rows((test + valid) * each, test * each)
        if min(*parts, 1 - sum(parts)) >= _LEAST_PART:
            return f"{{by: time, valid: {valid}{unit}, test: {test}{unit}}}  # the last of the log is judged"
        if roles.user is not None:
            return "{by: user_time, valid: 0.1, test: 0.1}  # the last rows of each user are judged"
    return "{by: random, valid: 0.1, test: 0.1}  # no times to cut between: rows are drawn"


def _past_lines(
    tasks: Sequence[Task], keys: dict[str, str], roles: Roles, span: LogSpan, *, positives: bool
) -> list[str]:
    """What went before: rates by key, and the last items of a user."""
    lines = ["  negatives: {per_event: 4, by: popularity}"] if positives else []
    if roles.time is None or not keys:
        return lines
    of = [task.name for task in tasks] if not positives else []
    as_of = "day" if span.ms >= 3 * DAY_MS else "hour"
    lines.append(f"  aggregates:  # rates and counts of earlier events, up to the {as_of} before; `of` names tasks")
    windows = ["all", "7d"] if as_of == "day" else ["all"]
    for key in keys.values():
        lines.append(f"    - {flow({'by': [key], 'of': of, 'as_of': as_of, 'windows': windows})}")  # noqa: PERF401
    if roles.user is not None and roles.item is not None:
        first, item, user = tasks[0], keys[roles.item], keys[roles.user]
        history: dict[str, object] = {"name": "last_items", "of": item, "by": user, "last": 20}
        if first.kind == "binary" and not (first.within or first.by or positives):
            history["where"] = first.label
        lines += ["  histories:  # what the user took last; `shares`: with the embedding of that feature"]
        lines += [f"    - {flow(history | {'shares': item})}"]
    return lines
