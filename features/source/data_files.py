"""Which files a path of a recipe names, and what their folders' names say: hive partitions, ``name=value``.

As Spark and Delta read folders: names that begin with ``_`` or ``.`` are not data, such as ``_temporary`` and
``_delta_log``, and only folders below the path are partitions.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from contract.errors import DataError
from features.source.delta_log import is_delta, live_files
from features.source.filesystems import filesystem_of, find_remote, without_protocol

ENDINGS = (".parquet", ".parq", ".pq")
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_FIRST_BYTES = b"PAR1"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class DataFiles:
    """The files of a table, sorted, and the folder below which folders' names are partitions."""

    files: tuple[str, ...]
    root: str

    def partitions(self) -> dict[str, list[str | None]]:
        """By name of a partition its value in each file; None is null.

        Raises:
            DataError: files that lie in differently named partitions.
        """
        by_file = [dict(self._pairs(file)) for file in self.files]
        names = list(by_file[0])
        for file, pairs in zip(self.files, by_file, strict=True):
            if list(pairs) != names:
                message = (
                    f"{file} lies in partitions {', '.join(pairs) or 'of no name'}, but {self.files[0]} in "
                    f"{', '.join(names) or 'none'}; all files of a table need the same, so name only a part in `path`"
                )
                raise DataError(message)
        return {name: [pairs[name] for pairs in by_file] for name in names}

    def _pairs(self, file: str) -> Iterator[tuple[str, str | None]]:
        for part in self.below(file)[:-1]:
            name, equals, value = part.partition("=")
            if name and equals:
                yield unquote(name), None if value == NULL_PARTITION else unquote(value)

    def below(self, file: str) -> list[str]:
        """The parts of a file's path below the root."""
        return file.removeprefix(self.root).strip("/").split("/")

    def above(self) -> set[str]:
        """Names that an engine would take for partitions, though they stand in the path itself."""
        return {part.partition("=")[0] for part in self.root.split("/") if "=" in part}


def partition_type(values: Sequence[str | None]) -> str:
    """What the values of a partition are: ``int64``, ``date`` or ``string``; all of them must be."""
    known = [value for value in values if value is not None]
    if known and all(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value) for value in known):
        return "int64"
    return "date" if known and all(_is_date(value) for value in known) else "string"


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def find_files(path: str, where: str) -> list[str]:
    """The Parquet files behind a path or URL: itself, all below a directory, or the matches of a glob, sorted.

    Raises:
        DataError: there are none.
    """
    return list(find_data(path, where).files)


def find_data(path: str, where: str) -> DataFiles:
    """As `find_files`, with the folder below which partitions begin.

    Raises:
        DataError: there are none.
    """
    filesystem, local = filesystem_of(path), without_protocol(path)
    if is_delta(filesystem, path if filesystem is not None else local):
        folder = (path if filesystem is not None else local).rstrip("/")
        return DataFiles(tuple(live_files(filesystem, folder, where)), folder)
    files = _remote(filesystem, path) if filesystem is not None else _local(local)
    if not files.files:
        message = f"{where}: no Parquet file at {path!r} (seen from {Path.cwd()}); correct `path`{_hint(local)}"
        raise DataError(message)
    return files


def _hint(path: str) -> str:
    """What lies there instead."""
    place = Path(path)
    if not place.is_dir():
        return ""
    names = sorted(entry.name for entry in place.iterdir())[:3]
    return f": files must end in {', '.join(ENDINGS)}, but there are {', '.join(names) or 'none'}"


def _remote(filesystem: Any, path: str) -> DataFiles:
    files = find_remote(filesystem, path, ENDINGS)
    if filesystem.isdir(path):
        root = filesystem.unstrip_protocol(filesystem._strip_protocol(path))  # noqa: SLF001 - fsspec's way to tell
    else:
        root = _before_wildcards(path) if _MAGIC.search(path) else path.rpartition("/")[0]
    data = DataFiles(tuple(files), root)
    return DataFiles(tuple(f for f in files if not _is_hidden(data.below(f), path)), root)


def _local(path: str) -> DataFiles:
    if Path(path).is_dir():
        below = _once(_walk(path))
        named = [file for file in below if file.lower().endswith(ENDINGS)]
        # Hive, Impala and Athena give their files no ending.
        return DataFiles(tuple(named or filter(_is_parquet, below)), path.rstrip("/"))
    # The pattern may be absolute, which pathlib's own does not take.
    matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    root = _before_wildcards(path) if _MAGIC.search(path) else os.path.dirname(path)  # noqa: PTH120 - keeps "a/.." as it is
    data = DataFiles(tuple(matches), root)
    files = (f for f in matches if Path(f).is_file() and not _is_hidden(data.below(f), path))
    return DataFiles(tuple(_once(files)), root)


def _walk(top: str) -> Iterator[str]:
    """Files below a folder, symbolic links followed, each folder once."""
    visited: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        visited.add(os.path.realpath(folder))
        folders[:] = [
            name for name in folders if not _is_hidden([name]) and os.path.realpath(Path(folder, name)) not in visited
        ]
        yield from (str(Path(folder, name)) for name in names if not _is_hidden([name]))


def _is_parquet(path: str) -> bool:
    """Whether a file without an ending begins as Parquet does."""
    if Path(path).suffix:
        return False
    with Path(path).open("rb") as file:
        return file.read(len(_FIRST_BYTES)) == _FIRST_BYTES


def _once(files: Iterator[str]) -> list[str]:
    """Files in order; of several names of one file, such as a link ``latest``, the file itself or else the first."""
    by_target: dict[str, str] = {}
    for file in sorted(files):
        target = os.path.realpath(file)
        if target not in by_target or os.path.realpath(by_target[target]) != os.path.abspath(by_target[target]):  # noqa: PTH100
            by_target[target] = file if os.path.abspath(file) == target else by_target.get(target, file)  # noqa: PTH100
    return sorted(by_target.values())


def _before_wildcards(path: str) -> str:
    """The folder of a pattern up to its first part with a wildcard."""
    parts = path.split("/")
    first = next(place for place, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:first])


def _is_hidden(parts: Sequence[str], pattern: str = "") -> bool:
    """Whether a part of a path is not data and no partition either; what a pattern names literally is meant."""
    meant = set(pattern.split("/"))
    return any(part.startswith(("_", ".")) and "=" not in part and part not in meant for part in parts)
