"""The live files of a Delta table, by its log: a folder of them holds removed and rewritten files as well.

The log is that of the Delta transaction protocol (github.com/delta-io/delta, PROTOCOL.md): numbered commits of
actions as JSON lines, and checkpoints as Parquet. What this reader does not know is refused: deletion vectors
and renamed columns would be read wrongly without it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow.parquet as pq

from contract.errors import DataError

LOG_FOLDER = "_delta_log"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.\d{10}\.\d{10})?\.parquet")
_KNOWN_FEATURES = {"timestampNtz", "vacuumProtocolCheck"}
_FEATURE_READER = 3
"""From this version of readers on, a table names the features that a reader must know."""
_ACTIONS = ("add", "remove", "metaData", "protocol")


@dataclass
class _State:
    """What the actions so far leave: live files by path, and how they must be read."""

    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, action: Mapping[str, Any]) -> None:
        if action.get("add"):
            self.files[action["add"]["path"]] = action["add"]
        if action.get("remove"):
            self.files.pop(action["remove"]["path"], None)
        self.metadata = action.get("metaData") or self.metadata
        self.protocol = action.get("protocol") or self.protocol


def is_delta(filesystem: Any, folder: str) -> bool:
    """Whether a folder is a Delta table; `filesystem` is fsspec's, or None for this machine's."""
    filesystem, log = filesystem or _local(), f"{folder}/{LOG_FOLDER}"
    return bool(filesystem.isdir(log)) and any(map(_numbered, _names(filesystem, log)))


def live_files(filesystem: Any, folder: str, where: str) -> list[str]:
    """The files that the newest version of a table consists of, sorted; `filesystem` as for `is_delta`.

    Raises:
        DataError: a log with gaps, or a table that only a reader with more features reads rightly; it is named.
    """
    state = _State()
    for action in _actions(filesystem or _local(), f"{folder}/{LOG_FOLDER}", where):
        state.apply(action)
    _refuse_unknown(state, folder, where)
    return sorted(_path_of(folder, file, state, where) for file in state.files.values())


def _local() -> Any:
    return fsspec.filesystem("file")


def _names(filesystem: Any, log: str) -> list[str]:
    return sorted(str(path).rpartition("/")[2] for path in filesystem.ls(log, detail=False))


def _numbered(name: str) -> bool:
    return bool(_COMMIT.fullmatch(name) or _CHECKPOINT.fullmatch(name))


def _actions(filesystem: Any, log: str, where: str) -> Iterator[Mapping[str, Any]]:
    """All actions from the last checkpoint on, in the order of commits."""
    names = _names(filesystem, log)
    checkpoints = {int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    commits = {int(match[1]): f"{log}/{name}" for name in names if (match := _COMMIT.fullmatch(name))}
    begin = max(checkpoints, default=-1)
    for name in names:
        match = _CHECKPOINT.fullmatch(name)
        if match and int(match[1]) == begin:
            with filesystem.open(f"{log}/{name}", "rb") as file:
                table = pq.read_table(file)
            yield from table.select([c for c in table.column_names if c in _ACTIONS]).to_pylist()
    later = [number for number in sorted(commits) if number > begin]
    if later != list(range(begin + 1, begin + 1 + len(later))) or (begin < 0 and not later):
        message = f"{where}: the log in {log} lacks commits after {begin if begin >= 0 else 'its begin'}; restore them"
        raise DataError(message)
    for number in later:
        lines = filesystem.cat_file(commits[number]).decode().splitlines()
        yield from (json.loads(line) for line in lines if line.strip())


def _refuse_unknown(state: _State, folder: str, where: str) -> None:
    features: set[str] = set()
    if state.protocol.get("minReaderVersion", 1) >= _FEATURE_READER:
        features = set(state.protocol.get("readerFeatures") or ()) - _KNOWN_FEATURES
    settings = state.metadata.get("configuration") or {}
    mapping = dict(settings).get("delta.columnMapping.mode", "none")
    # A table may allow what none of its files uses.
    if not any(file.get("deletionVector") for file in state.files.values()):
        features -= {"deletionVectors"}
    if mapping == "none":
        features -= {"columnMapping"}
    else:
        features |= {"columnMapping"}
    if features:
        message = (
            f"{where}: the Delta table {folder} uses {', '.join(sorted(features))}, which this reader does not know; "
            "write it without (REORG TABLE ... APPLY (PURGE) removes deletion vectors), or export the rows as Parquet"
        )
        raise DataError(message)


def _path_of(folder: str, file: Mapping[str, Any], state: _State, where: str) -> str:
    path = unquote(file["path"]).removeprefix("file://")
    partitions = state.metadata.get("partitionColumns") or []
    if any(f"{name}=" not in path for name in partitions):
        message = (
            f"{where}: {file['path']} of the Delta table {folder} does not say its partitions "
            f"{', '.join(partitions)} in its folders' names; rewrite the table, or export the rows as Parquet"
        )
        raise DataError(message)
    return path if path.startswith("/") or "://" in path else f"{folder.rstrip('/')}/{path}"
