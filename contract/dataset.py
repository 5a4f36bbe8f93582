"""Encoded rows on disk: a directory of Parquet parts with a manifest, or one Parquet file.

::

    features/train/_manifest.json      what the parts are, and what they were encoded with
    features/train/part-00000.parquet  the rows of the log's first days, and so on

Spark writes such directories and ``pyarrow.dataset`` reads them; both pass over names that begin with ``_``. Each part
also says in its key-value metadata what it was encoded with, so that a file is known wherever it is copied to.

Rows are read in one order everywhere: the row groups of all parts among each other, so that the first ones are a sample
of all days. Who puts columns beside predictions reads both through `EncodedDataset`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from contract.errors import DataError, IntegrityError, SchemaMismatchError
from contract.files import write_text
from contract.schema import Schema
from contract.settings import Settings
from contract.sha256 import sha256_of_stream

DATASET_MANIFEST = "_manifest.json"
SCHEMA_KEY, ENCODING_KEY = b"moerank.schema", b"moerank.encoding"
_MULTIPLIER, _MODULUS = 2_654_435_761, 4_294_967_296
"""Knuth's multiplicative hash of the row groups' numbers orders them."""


class EncodedWith(Settings):
    """What rows were encoded with.

    `schema_fingerprint` is `Schema.fingerprint`; `encoding` is a digest of the fitted state that values went through:
    bins, means, and the vocabularies as they were known on the rows' last day.
    """

    schema_fingerprint: str
    encoding: str

    def metadata(self) -> dict[bytes, bytes]:
        """As key-value metadata of a Parquet file or an Arrow schema."""
        return {SCHEMA_KEY: self.schema_fingerprint.encode(), ENCODING_KEY: self.encoding.encode()}

    @classmethod
    def read(cls, metadata: dict[bytes, bytes] | None) -> Self | None:
        """Out of key-value metadata; None where they do not say it."""
        pairs = metadata or {}
        if SCHEMA_KEY not in pairs:
            return None
        encoding = pairs.get(ENCODING_KEY, b"").decode()
        return cls(schema_fingerprint=pairs[SCHEMA_KEY].decode(), encoding=encoding)


class DatasetPart(Settings):
    """A file of a dataset. Where vocabularies grow, earlier days say the schema of the build that encoded them."""

    file: str
    rows: int
    sha256: str
    encoded_with: EncodedWith


class DatasetManifest(Settings):
    """``_manifest.json``: `encoded_with` is what all parts together fit, and what a model's schema is compared with."""

    encoded_with: EncodedWith
    parts: tuple[DatasetPart, ...]

    def save(self, directory: Path) -> None:
        """Write it into a directory in one step."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / DATASET_MANIFEST)


class RowGroup(NamedTuple):
    """A row group of a dataset: the number of its file, its own number in that file, and its rows."""

    file: int
    number: int
    rows: int


class OpenParts:
    """Local files that stay open from one read to the next, in one thread; they close when nobody holds this."""

    _MOST = 64

    def __init__(self) -> None:
        self._files: dict[str, pq.ParquetFile] = {}

    def file(self, path: str, footer: pq.FileMetaData) -> pq.ParquetFile:
        """The open file; the one that was opened first is closed where there are too many.

        Raises:
            OSError: it cannot be opened.
        """
        if path not in self._files:
            if len(self._files) == self._MOST:
                self._files.pop(next(iter(self._files))).close()
            self._files[path] = _parquet(path, footer)
        return self._files[path]


@dataclass(frozen=True)
class EncodedDataset:
    """Encoded rows in one file or several; `filesystem` is fsspec's where `path` is a URL.

    Example::

        test = EncodedDataset.open(Path("runs/shop/features/test"))
        test.require(Schema.load(bundle))
        times = test.read(["__time"])["__time"]
    """

    path: Path | str
    files: tuple[str, ...]
    encoded_with: EncodedWith | None
    manifest: DatasetManifest | None
    footers: tuple[pq.FileMetaData, ...]
    filesystem: Any = None

    @classmethod
    def open(cls, path: Path | str, filesystem: Any = None) -> Self:
        """Read manifest and footers of a directory of parts, or the footer of one file.

        Raises:
            DataError: nothing there, a directory that is not a dataset, or a file that is not Parquet.
            IntegrityError: a part is not what the manifest says.
        """
        if filesystem is None and not Path(path).exists():
            raise _nothing_there(Path(path))
        manifest = _manifest(path, filesystem)
        files = (str(path),) if manifest is None else tuple(f"{path}/{part.file}" for part in manifest.parts)
        footers = tuple(_footer(file, filesystem) for file in files)
        encodings = tuple(EncodedWith.read(footer.metadata) for footer in footers)
        if manifest is None:
            return cls(path, files, encodings[0], None, footers, filesystem)
        for part, footer, encoded_with in zip(manifest.parts, footers, encodings, strict=True):
            if (footer.num_rows, encoded_with) != (part.rows, part.encoded_with):
                message = f"{path}/{part.file} is not the part that {DATASET_MANIFEST} tells of; build features again"
                raise IntegrityError(message)
        return cls(path, files, manifest.encoded_with, manifest, footers, filesystem)

    def require(self, schema: Schema) -> None:
        """Refuse rows that were encoded for another schema.

        Raises:
            SchemaMismatchError: naming both fingerprints.
            DataError: the rows do not say what they were encoded with.
        """
        ours = schema.fingerprint()
        if self.encoded_with is None:
            message = (
                f"{self.path} does not say what it was encoded with: its Parquet metadata lack "
                f"{SCHEMA_KEY.decode()!r}; take a directory that `moerank features CONFIG` made, or keep the "
                "metadata; raw rows go to --events"
            )
            raise DataError(message)
        if self.encoded_with.schema_fingerprint != ours:
            message = (
                f"{self.path} was encoded with schema {self.encoded_with.schema_fingerprint}, but what reads it has "
                f"schema {ours}: the ids and bins of one mean nothing to the other; use rows and a model of one "
                "features build"
            )
            raise SchemaMismatchError(message)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The columns of the first file; all files have the same."""
        return tuple(self.footers[0].schema.to_arrow_schema().names)

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(footer.num_rows for footer in self.footers)

    @cached_property
    def row_groups(self) -> tuple[RowGroup, ...]:
        """All row groups, in the order in which they are read; those of a single file as they lie in it."""
        groups = [
            RowGroup(file, number, footer.row_group(number).num_rows)
            for file, footer in enumerate(self.footers)
            for number in range(footer.num_row_groups)
        ]
        if len(self.files) == 1:
            return tuple(groups)
        order = np.argsort(np.arange(len(groups)) * _MULTIPLIER % _MODULUS, kind="stable")
        return tuple(groups[place] for place in order.tolist())

    def read(self, names: Sequence[str], most: int | None = None) -> pa.Table:
        """Columns in the order of reading; of the first rows only, if `most` says how many.

        Raises:
            DataError: a page is damaged.
        """
        ends = np.cumsum([group.rows for group in self.row_groups])
        needed = len(ends) if most is None else int(np.searchsorted(ends, most)) + 1
        table = self.read_groups(self.row_groups[:needed], names)
        return table if most is None else table.slice(0, most)

    def read_groups(
        self, groups: Sequence[RowGroup], names: Sequence[str], opened: OpenParts | None = None
    ) -> pa.Table:
        """Columns of some row groups, one after the other; each file is opened once, or taken from those `opened`.

        Raises:
            DataError: a page is damaged.
        """
        numbers: dict[int, list[RowGroup]] = {}
        for group in groups:
            numbers.setdefault(group.file, []).append(group)
        tables = {file: self._read_file(file, [group.number for group in of_file], names, opened)
                  for file, of_file in numbers.items()}  # fmt: skip
        if len(tables) == 1:
            return next(iter(tables.values()))
        begins = dict.fromkeys(tables, 0)
        slices = []
        for group in groups:
            slices.append(tables[group.file].slice(begins[group.file], group.rows))
            begins[group.file] += group.rows
        # Parts of earlier versions may say that a column has nulls.
        return pa.concat_tables(slices, promote_options="default") if slices else self._empty(names)

    def verify(self) -> None:
        """Compare every part's bytes with the manifest; a single file has none.

        Raises:
            IntegrityError: naming the part that is not what was written.
        """
        parts = self.manifest.parts if self.manifest else ()
        for file, part in zip(self.files, parts, strict=bool(parts)):
            with self._stream(file) as stream:
                if sha256_of_stream(stream) != part.sha256:
                    message = f"{file} is damaged: its sha256 is not the manifest's; build features again"
                    raise IntegrityError(message)

    def _empty(self, names: Sequence[str]) -> pa.Table:
        schema = self.footers[0].schema.to_arrow_schema()
        return pa.schema([schema.field(name) for name in names]).empty_table()

    def _read_file(
        self, file: int, groups: list[int], names: Sequence[str], opened: OpenParts | None = None
    ) -> pa.Table:
        path, footer = self.files[file], self.footers[file]
        with ExitStack() as stack:
            try:
                # Of a local file Arrow reads the pages itself, without the interpreter.
                if self.filesystem is not None:
                    parquet = stack.enter_context(_parquet(stack.enter_context(self._stream(path)), footer))
                elif opened is not None:
                    parquet = opened.file(path, footer)
                else:
                    parquet = stack.enter_context(_parquet(path, footer))
                return parquet.read_row_groups(groups, columns=list(names))
            except OSError as error:
                named = ", ".join(map(str, groups))
                message = f"{path}: row group {named} is damaged ({error}); remove kept days, and build again"
                raise DataError(message) from error

    def _stream(self, file: str) -> Any:
        return _open(file, self.filesystem)


def _parquet(source: Any, footer: pq.FileMetaData) -> pq.ParquetFile:
    return pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, pre_buffer=True)


def split_directory(path: Path) -> Path | None:
    """The directory that a split lies in now, for a path such as ``features/test.parquet`` of earlier versions."""
    directory = path.with_suffix("")
    is_moved = path.suffix == ".parquet" and not path.exists() and (directory / DATASET_MANIFEST).is_file()
    return directory if is_moved else None


def _nothing_there(path: Path) -> DataError:
    directory = split_directory(path)
    if directory is not None:
        return DataError(f"there is nothing at {path}: encoded rows are a directory of parts; use {directory}")
    hint = "build features with `moerank features CONFIG`"
    return DataError(f"{path} cannot be read as Parquet: there is nothing; {hint}")


def _open(file: str, filesystem: Any) -> Any:
    return Path(file).open("rb") if filesystem is None else filesystem.open(file, "rb")


def _manifest(path: Path | str, filesystem: Any) -> DatasetManifest | None:
    """The manifest of a directory; None for a file."""
    is_directory = Path(path).is_dir() if filesystem is None else filesystem.isdir(str(path))
    if not is_directory:
        return None
    file = f"{path}/{DATASET_MANIFEST}"
    try:
        with _open(file, filesystem) as stream:
            return DatasetManifest.model_validate_json(stream.read())
    except (OSError, ValidationError) as error:
        message = (
            f"{path} is not a dataset of encoded rows: {DATASET_MANIFEST} is missing or not of this version; "
            "name a split such as runs/NAME/features/test, or build features with `moerank features CONFIG`"
        )
        raise DataError(message) from error


def _footer(file: str, filesystem: Any) -> pq.FileMetaData:
    try:
        with _open(file, filesystem) as stream:
            return pq.read_metadata(stream)
    except (OSError, pa.ArrowInvalid) as error:
        message = f"{file} cannot be read as Parquet ({error}); build features with `moerank features CONFIG`"
        raise DataError(message) from error
