"""Draft a project's file from raw tables: a commented YAML that trains as it is."""

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis.expr.types as ir

from contract.errors import ConfigError
from features.source.functions import epoch_ms
from features.source.profile import ColumnProfile, profile_table
from features.source.query_engine import Backend, connect, scalar
from features.source.tables import read_table
from features.source.times import as_moment
from features.table_config import TableConfig, TimeFormat
from pipeline.project.guess_roles import GuessedFeature, Profiles, Roles, epoch_unit, guess_features, guess_roles

_DAY_MS = 86_400_000
_STEPS = ("10m", "1h", "6h", "1d", "2d", "3d", "7d", "14d", "30d")
_STEP_MS = {step: int(step[:-1]) * {"m": 60_000, "h": 3_600_000, "d": _DAY_MS}[step[-1]] for step in _STEPS}


@dataclass(frozen=True)
class RawTables:
    """Where the tables of a project to be lie."""

    events: str
    users: str | None = None
    items: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class _Task:
    name: str
    kind: str
    label: str
    where: str = ""
    more: str = ""
    within_ms: int = 0
    reads: tuple[str, ...] = ()


class _Log:
    """The log and its columns, with moments as such."""

    def __init__(self, connection: Backend, path: str) -> None:
        self.connection = connection
        self.table = _open(connection, path, "data.events")
        self.columns = profile_table(connection, self.table)

    def ms(self, table: ir.Table, column: ColumnProfile) -> ir.Value:
        """A column of a table as milliseconds since 1970."""
        how = time_format(column)
        value = table[column.path]
        return epoch_ms(value if how is None else as_moment(value, how, column.path))


def _open(connection: Backend, path: str, where: str) -> ir.Table:
    return read_table(connection, TableConfig(path=path, verify=False), where, set())


def time_format(column: ColumnProfile) -> TimeFormat | None:
    """What a recipe must say of a column of moments; None: its type says all."""
    if column.dtype.is_timestamp() and column.dtype.timezone is not None:
        return None
    unit = epoch_unit(column)
    return TimeFormat.model_validate({"unit": unit}) if unit else TimeFormat()


def draft_recipe(tables: RawTables, name: str, labels: Sequence[str] = ()) -> str:
    """The text of a project's file; `labels` are columns of the log, where they are not to be guessed.

    Raises:
        ConfigError: no label can be guessed, or one that was named is no column.
        DataError: a table that cannot be read.
    """
    with tempfile.TemporaryDirectory() as spill:
        connection = connect("1GB", Path(spill))
        try:
            return _draft(connection, tables, name, labels)
        finally:
            connection.disconnect()


def _draft(connection: Backend, tables: RawTables, name: str, labels: Sequence[str]) -> str:
    log = _Log(connection, tables.events)
    users = _profiles(connection, tables.users, "data.users")
    items = _profiles(connection, tables.items, "data.items")
    roles = guess_roles(log.columns, users, items, labels)
    tasks, label_lines = _tasks(log, roles, tables)
    if not tasks:
        message = f"no label could be guessed; name one or more: --label COLUMN, out of {', '.join(log.columns)}"
        raise ConfigError(message)
    shown = _shown_columns(log, roles)
    reads = {column for task in tasks for column in task.reads}
    own = guess_features(shown, [c for c in (roles.user, roles.item, roles.time, _day_column(log, roles), *reads) if c])
    taken = {feature.name for feature in own} | {c for c in (roles.user, roles.item) if c}
    lines = [
        "# yaml-language-server: $schema=moerank.schema.json   (moerank config-schema > moerank.schema.json)",
        f"name: {name}",
        "data:",
        *_table_lines("events", tables.events, own, log.columns, roles=roles),
        *label_lines,
    ]
    features = [GuessedFeature(c, c, "id", {"min_count": 2}) for c in (roles.user, roles.item) if c] + own
    for side, path, columns, key in (
        ("users", tables.users, users, roles.user),
        ("items", tables.items, items, roles.item),
    ):
        if path is not None and columns is not None and key is not None:
            guessed = [f for f in guess_features(columns, [key]) if f.name not in taken]
            taken |= {f.name for f in guessed}
            lines += _table_lines(side, path, guessed, columns, key=key)
            features += guessed
    lines += [
        "  features:  # names of something are ids, sizes are dense; remove what is not known when a request comes"
    ]
    lines += _feature_lines(features, roles)
    lines += [*_past_lines(tasks, roles), "  tasks:  # what to predict, of rows for which `where` holds"]
    lines += [_task_line(task) for task in tasks]
    lines += [f"  split: {_split(log, roles, tasks)}", "model: {experts: 8, gate: {name: top_k, k: 2}}"]
    return "\n".join([*lines, "train: {epochs: 3, batch_size: 1024}"]) + "\n"


def _profiles(connection: Backend, path: str | None, where: str) -> Profiles | None:
    return None if path is None else profile_table(connection, _open(connection, path, where))


def _shown_columns(log: _Log, roles: Roles) -> Profiles:
    """The columns as they are in rows that are predicted: what only later events have is empty there."""
    if roles.event_type is None or not roles.event_type.later:
        return log.columns
    now = log.table[roles.event_type.column].notin(roles.event_type.later)
    return profile_table(log.connection, log.table.filter(now))


def _day_column(log: _Log, roles: Roles) -> str | None:
    """A date beside the moment, such as a folder's, says nothing that is known of later days."""
    dates = (c.path for c in log.columns.values() if c.dtype.is_date() and roles.time is not None)
    return next(dates, None)


def _tasks(log: _Log, roles: Roles, tables: RawTables) -> tuple[list[_Task], list[str]]:
    tasks = [_Task(plain(c), "binary", f"{c}", reads=(c,)) for c in roles.binary]
    tasks += [_measure(c, log.columns[c]) for c in roles.measures if log.columns[c].nulls == 0]
    lines: list[str] = []
    if roles.event_type is not None:
        tasks = _type_tasks(log, roles)
    if tables.labels is not None:
        more, lines = _label_table(log, roles, tables.labels)
        tasks = more
    return tasks, lines


def plain(name: str) -> str:
    """A name that a task can have."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return text if text[:1].isalpha() else f"task_{text}"


def _measure(path: str, column: ColumnProfile) -> _Task:
    """A number to predict; what is never negative is judged on a logarithmic scale."""
    if column.low is not None and column.low >= 0:
        return _Task(
            plain(column.name), "regression", f"log1p({path})", more=f", unit: log1p {plain(path)}", reads=(path,)
        )
    return _Task(plain(column.name), "regression", path, reads=(path,))


def _type_tasks(log: _Log, roles: Roles) -> list[_Task]:
    """Kinds of events that answer what was shown are labels of their row; later ones, of an earlier row."""
    kind = roles.event_type
    if kind is None:
        return []
    column = kind.column
    now = f"{column} not in [{', '.join(map(repr, kind.later))}]" if kind.later else ""
    tasks = [_Task(plain(v), "binary", f"{column} == {v!r}", now, reads=(column,)) for v in kind.answered]
    keys = [key for key in (roles.user, roles.item) if key]
    for value in kind.later if keys and roles.time else ():
        within = _within(log, roles, keys, value)
        more = f", by: [{', '.join(keys)}], within: {within}"
        tasks.append(_Task(plain(value), "binary", f"{column} == {value!r}", now, more, _STEP_MS[within], (column,)))
    return tasks


def _within(log: _Log, roles: Roles, keys: Sequence[str], value: str) -> str:
    """How long after an event of the same keys nine of ten of the later events have come."""
    column, time = str(roles.event_type.column if roles.event_type else ""), log.columns[str(roles.time)]
    dated = log.table.mutate(__ms=log.ms(log.table, time))
    first = dated.filter(dated[column] != value).group_by(list(keys)).aggregate(__first=dated["__ms"].max())
    late = dated.filter(dated[column] == value)
    both = late.inner_join(first, list(keys))
    gap = both.filter(both["__ms"] > both["__first"])
    return _round_up(scalar(log.connection, (gap["__ms"] - gap["__first"]).quantile(0.9)))


def _round_up(ms: float | None) -> str:
    return next((step for step in _STEPS if ms is not None and _STEP_MS[step] >= ms), "7d")


def _label_table(log: _Log, roles: Roles, path: str) -> tuple[list[_Task], list[str]]:
    """What came of events, from a table of its own."""
    table = _open(log.connection, path, "data.labels[0]")
    columns = profile_table(log.connection, table)
    shared = [c for c in columns if c in log.columns]
    unique = [c for c in shared if log.columns[c].is_unique]
    keys = unique[:1] or [c for c in shared if c in (roles.user, roles.item)]
    if not keys:
        message = f"--labels {path} shares no key with the log; its columns are {', '.join(columns)}"
        raise ConfigError(message)
    name = plain(re.sub(r"s$", "", Path(path).name.partition(".")[0]))
    moments = [c for c in columns.values() if c.path not in keys and (c.dtype.is_timestamp() or epoch_unit(c))]
    parts, within = [f"name: {name}", f"path: {path}", f"by: [{', '.join(keys)}]"], ""
    if moments and roles.time is not None:
        at = moments[0]
        dated = log.table.select(*keys, __from=log.ms(log.table, log.columns[roles.time]))
        both = table.select(*keys, __to=log.ms(table, at)).inner_join(dated, keys)
        within = _round_up(scalar(log.connection, (both["__to"] - both["__from"]).quantile(0.99)))
        parts += [f"time: {at.path}", *_times(at), f"within: {within}"]
    more = f", within: {within}" if within else ""
    lag = _STEP_MS.get(within, 0)
    tasks = [_Task(name, "binary", name, more=more, within_ms=lag)]
    sizes = [c for c in columns.values() if c.path not in keys and c not in moments and c.dtype.is_numeric()]
    tasks += [
        _Task(f"{name}_{plain(c.path)}", "regression", f"log1p({name}_{c.path})", name, more, lag)
        for c in sizes
        if c.low is not None and c.low >= 0
    ]
    return tasks, ["  labels:  # what came of events, each by its own row", f"    - {{{', '.join(parts)}}}"]


def _times(column: ColumnProfile) -> list[str]:
    how = time_format(column)
    if how is None:
        return []
    text = f"unit: {how.unit}" if how.unit else f"zone: {how.zone}"
    return [f"times: {{{column.path}: {{{text}}}}}"]


def _table_lines(
    key_name: str,
    path: str,
    features: Iterable[GuessedFeature],
    columns: Profiles,
    *,
    roles: Roles | None = None,
    key: str | None = None,
) -> list[str]:
    lines = [f"  {key_name}:", f"    path: {path}"]
    derived = {f.name: f.path for f in features if f.name != f.path}
    if key is not None:
        lines.append(f"    key: {key}")
    if roles is not None:
        keys = {"user": roles.user, "item": roles.item, "time": roles.time}
        lines += [f"    {role}: {column}" for role, column in keys.items() if column]
        if roles.time is not None:
            lines += [f"    {line}" for line in _times(columns[roles.time])]
            derived |= {"hour": f"hour({roles.time})", "weekday": f"weekday({roles.time})"}
    if derived:
        lines.append(f"    columns: {{{', '.join(f'{name}: {_quoted(text)}' for name, text in derived.items())}}}")
    return lines


def _quoted(text: str) -> str:
    """A text as it stands in flow style."""
    return text if re.fullmatch(r"[\w.() ]+", text) else "'" + text.replace("'", "''") + "'"


def _feature_lines(features: Sequence[GuessedFeature], roles: Roles) -> list[str]:
    clock = [GuessedFeature(c, c, "id") for c in ("hour", "weekday")] if roles.time else []
    texts = [_one_feature(feature) for feature in [*features, *clock]]
    lines, line = [], ""
    for text in texts:
        if line and len(line) + len(text) > 100:  # noqa: PLR2004 - a line that is read without scrolling
            lines.append(f"    {line}")
            line = ""
        line += f" {text}," if line else f"{text},"
    first, *rest = [*lines, f"    {line}"]
    body = [first.replace("    ", "    [", 1), *(text.replace("    ", "     ", 1) for text in rest)]
    return [*body[:-1], body[-1].removesuffix(",") + "]"]


def _one_feature(feature: GuessedFeature) -> str:
    parts: list[Any] = [f"name: {feature.name}"]
    if feature.kind != "id":
        parts.append(f"kind: {feature.kind}")
    parts += [f"{key}: {_quoted(str(value))}" for key, value in feature.options.items()]
    return f"{{{', '.join(parts)}}}"


def _past_lines(tasks: Sequence[_Task], roles: Roles) -> list[str]:
    """What went before: rates by key, and the last items of a user."""
    names = ", ".join(task.name for task in tasks)
    if roles.time is None or not (roles.user or roles.item):
        return []
    keys = [key for key in (roles.user, roles.item) if key]
    lines = ["  aggregates:  # rates and counts of the days before, of tasks by name"]
    lines += [f"    - {{by: [{key}], of: [{names}], as_of: day, windows: [all, 7d]}}" for key in keys]
    if roles.user and roles.item:
        first = tasks[0]
        where = (
            f", where: {_flow(first.label)}" if first.kind == "binary" and not (first.within_ms or first.more) else ""
        )
        history = f"{{name: last_items, of: {roles.item}, by: {roles.user}, last: 20{where}, shares: {roles.item}}}"
        lines += ["  histories:", f"    - {history}"]
    return lines


def _task_line(task: _Task) -> str:
    where = f", where: {_flow(task.where)}" if task.where else ""
    return f"    - {{name: {task.name}, kind: {task.kind}, label: {_flow(task.label)}{where}{task.more}}}"


def _flow(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _split(log: _Log, roles: Roles, tasks: Sequence[_Task]) -> str:
    """The last tenth of the log's days each; where labels come late, the test begins so much earlier."""
    if roles.time is None:
        return "{by: random, valid: 0.1, test: 0.1}"
    ms = log.table.select(ms=log.ms(log.table, log.columns[roles.time]))["ms"]
    span = int(scalar(log.connection, ms.max() - ms.min()))
    unit, each = ("d", _DAY_MS) if span >= 5 * _DAY_MS else ("h", 3_600_000)
    part = max(1, round(span / each / 10))
    late = -(-max(task.within_ms for task in tasks) // each)
    return f"{{by: time, valid: {part}{unit}, test: {part + late}{unit}}}  # the last of the log is judged"
