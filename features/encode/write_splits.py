"""Make the splits out of partitions: encode each, unless its encoded rows are kept, and link them as a dataset's parts.

Nothing of a kept day is written again: a build writes what is new, and a manifest per split.
"""

import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, SERVED_ROW, TIME, USER_HASH, label_column, task_columns, weight_column
from contract.dataset import DatasetManifest, DatasetPart, EncodedWith
from contract.digests import digest_of
from contract.errors import DataError
from contract.files import write_text
from contract.machine_cores import usable_cores
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from contract.settings import Settings
from contract.sha256 import sha256_of, sha256_of_bytes
from features.encode.encoder import Encoder, refuse_by_policy
from features.encode.fit_encoders import Fitted, raw_values
from features.encode.history_lists import HistoryLists
from features.encode.served_values import ServedValues
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import key_hashes
from features.incremental.raw_dataset import RawDataset, where
from features.incremental.raw_rows import SHUFFLE_KEY, PartitionRows
from features.incremental.splits import LEFT_OUT, SPLIT_NAMES
from features.point_in_time.feature_plan import FeaturePlan
from features.source.parquet_files import AtomicWriter, write_table
from features.table_config import EventsConfig

GROUP_ROWS = 16_384
"""Rows of a row group, about: several of them, of several days, are mixed when they are read."""
WORKERS = min(4, usable_cores())
"""Threads that encode row groups; Arrow and NumPy let go of the interpreter for most of it."""

ENCODED_ROWS = 32_768
"""Rows that are encoded at a time, at least: each distinct id among them is looked up once."""


@dataclass(frozen=True)
class EncodedSplits:
    """Where the encoded rows of a partition lie by split, what they are, and what was counted of them.

    The facts are written after the pieces, so that pieces with facts are whole.
    """

    pieces: dict[int, Path]
    facts: Path
    counts: Path

    @classmethod
    def named(cls, path: Path, splits: NDArray[np.int8]) -> Self:
        """The files of rows of some splits; their names begin with `path`."""
        present = [int(number) for number in np.unique(splits) if number != LEFT_OUT]
        pieces = {number: path.with_name(f"{path.name}.{SPLIT_NAMES[number]}.parquet") for number in present}
        return cls(pieces, path.with_name(f"{path.name}.parts.json"), path.with_name(f"{path.name}.counts.json"))

    @property
    def files(self) -> list[Path]:
        """The files of all splits."""
        return list(self.pieces.values())

    @property
    def is_whole(self) -> bool:
        """Whether all pieces are there, as they were written."""
        return self.facts.is_file() and all(piece.is_file() for piece in self.files)

    def describe(self, encoded_with: EncodedWith) -> None:
        """Write down what the pieces are, which must be there."""
        facts = _PieceFacts(parts={number: _part_of(piece, encoded_with) for number, piece in self.pieces.items()})
        write_text(facts.model_dump_json() + "\n", self.facts)

    def part(self, number: int, name: str) -> DatasetPart:
        """A split's piece as a part of a dataset, under a name."""
        facts = _PieceFacts.model_validate_json(self.facts.read_bytes())
        return facts.parts[number].model_copy(update={"file": name})


class _PieceFacts(Settings):
    """The pieces of a partition by split."""

    parts: dict[int, DatasetPart]


def _part_of(file: Path, encoded_with: EncodedWith) -> DatasetPart:
    rows = pq.read_metadata(file).num_rows
    return DatasetPart(file=file.name, rows=rows, sha256=sha256_of(file), encoded_with=encoded_with)


def assemble(
    raw_dataset: RawDataset,
    feature_plans: list[FeaturePlan],
    encoder: Encoder,
    fitted: Fitted,
    config: FeaturesConfig,
    cache: Path,
    target: Path,
    served: ServedValues | None = None,
) -> list[EncodedSplits]:
    """Make the datasets ``train``, ``valid`` and ``test`` in `target`, whose parts are the partitions in order.

    The encoded rows of a partition and split are a file in `cache`, whose name tells what they depend on; one that is
    there is taken as it is. Rows hold what was `served`, where that is known. Gives the partitions that have rows in a
    split.

    Raises:
        DataError: a value that a policy refuses, or a label that is not finite.
    """
    fingerprint = encoder.schema.fingerprint()
    encodings = _encodings(raw_dataset, encoder, fitted)
    states = _states(raw_dataset, encodings, None if config.grow else fingerprint, served)
    partitions = [
        EncodedSplits.named(cache / f"{rows.path.stem}.{state}", splits)
        for rows, splits, state in zip(raw_dataset.parts, raw_dataset.splits, states, strict=True)
    ]
    for index, part in enumerate(partitions):
        if not part.is_whole:
            known = encoder.as_of(raw_dataset.known_on[index])
            rows = _encode(
                raw_dataset.parts[index], raw_dataset.splits[index], feature_plans, known, fitted, config.events, served
            )
            encoded_with = EncodedWith(schema_fingerprint=fingerprint, encoding=encodings[index])
            schema = _columns(encoder.schema).with_metadata(encoded_with.metadata())
            _write_pieces(rows, part.pieces, raw_dataset.splits[index], schema)
            part.describe(encoded_with)
    for file in set(cache.iterdir()).difference(*([*part.files, part.facts, part.counts] for part in partitions)):
        file.unlink()
    # The last partition knows all that is known.
    encoded_with = EncodedWith(schema_fingerprint=fingerprint, encoding=encodings[-1])
    for number, split in enumerate(SPLIT_NAMES):
        (target / split).mkdir()
        _link_parts(
            [part for part in partitions if number in part.pieces], number, encoded_with, encoder, target / split
        )
    return [part for part in partitions if part.pieces]


def _encodings(raw_dataset: RawDataset, encoder: Encoder, fitted: Fitted) -> list[str]:
    """By partition a digest of the fitted state that its rows are encoded with: numbers, and ids known by then."""
    fixed = [spec.model_dump(mode="json", exclude={"rows"}) for spec in encoder.schema.features]
    return [digest_of(fixed, fitted.priors, known) for known in fitted.vocabularies.digests(raw_dataset.known_on)]


def _states(
    raw_dataset: RawDataset, encodings: list[str], fingerprint: str | None, served: ServedValues | None
) -> list[str]:
    """By partition a digest of what its pieces depend on besides its raw rows.

    The schema's fingerprint is in it where each build fits again, so that every part says the last one. Where
    vocabularies grow it would change every day, and the days before are right as they are.
    """
    splits = [sha256_of_bytes(splits.tobytes()) for splits in raw_dataset.splits]
    if served is not None:
        logged = [served.digest(part.read([SERVED_ROW])[SERVED_ROW]) for part in raw_dataset.parts]
        splits = [digest_of(*both) for both in zip(splits, logged, strict=True)]
    return [digest_of(fingerprint, *both) for both in zip(encodings, splits, strict=True)]


def _link_parts(
    partitions: list[EncodedSplits], number: int, encoded_with: EncodedWith, encoder: Encoder, directory: Path
) -> None:
    """Make a split's dataset: its pieces under the names of parts, without a copy where the file system has links."""
    names = [f"part-{index:05d}.parquet" for index in range(max(len(partitions), 1))]
    parts = []
    for partition, name in zip(partitions, names[: len(partitions)], strict=True):
        _link(partition.pieces[number], directory / name)
        parts.append(partition.part(number, name))
    if not partitions:
        schema = _columns(encoder.schema).with_metadata(encoded_with.metadata())
        write_table(schema.empty_table(), directory / names[0])
        parts = [_part_of(directory / names[0], encoded_with)]
    DatasetManifest(encoded_with=encoded_with, parts=tuple(parts)).save(directory)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _write_pieces(
    parts: Iterator[dict[int, pa.Table]], pieces: dict[int, Path], splits: NDArray[np.int8], schema: pa.Schema
) -> None:
    """Write a partition's encoded rows, which come by split, to the file of each split."""
    with ExitStack() as stack:
        writers = {
            number: stack.enter_context(_RowGroups(path, schema, int(np.count_nonzero(splits == number))))
            for number, path in pieces.items()
        }
        for part in parts:
            for number, rows in part.items():
                writers[number].write(rows)


def _columns(schema: Schema) -> pa.Schema:
    """One column per feature, labels, weights, key hashes and time; none has nulls, which spares readers a tenth."""
    tasks = [task.name for task in schema.tasks]
    types = {spec.name: _arrow_type(spec) for spec in schema.features}
    types |= dict.fromkeys(task_columns(tasks), pa.float32())
    types |= {USER_HASH: pa.uint64(), ITEM_HASH: pa.uint64(), TIME: pa.int64()}
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in types.items()])


def _repeating(schema: pa.Schema) -> list[str]:
    """The paths of columns in which a dictionary saves room and time: not those of hashes and times."""
    names = [field for field in schema if not field.name.startswith("__")]
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in names]


def _encode(
    part: PartitionRows,
    splits: NDArray[np.int8],
    feature_plans: list[FeaturePlan],
    encoder: Encoder,
    fitted: Fitted,
    keys: EventsConfig,
    served: ServedValues | None,
) -> Iterator[dict[int, pa.Table]]:
    """Encode a partition, some row groups at a time, and part their rows by split."""
    schema = _columns(encoder.schema)
    columns = _used(feature_plans, encoder.schema, keys)
    lists = HistoryLists(part, feature_plans, encoder.schema.features, encoder)

    def encode(groups: range) -> dict[int, pa.Table]:
        raw = part.read_stored(columns, groups)
        encoded = _encode_rows(raw, lists.of(raw), feature_plans, encoder, fitted, keys, served)
        rows = encoded.select(schema.names).cast(schema)
        split_of_row = splits[begins[groups.start] : begins[groups.start] + len(rows)]
        return {
            int(number): where(rows, split_of_row == number) for number in np.unique(split_of_row) if number != LEFT_OUT
        }

    sizes = [part.metadata.row_group(number).num_rows for number in range(part.metadata.num_row_groups)]
    begins = np.append(0, np.cumsum(sizes))
    together = -(-ENCODED_ROWS * len(sizes) // max(part.metadata.num_rows, 1))
    numbers = range(len(sizes))
    todo = [numbers[begin : begin + together] for begin in numbers[::together]]
    with ThreadPoolExecutor(WORKERS) as workers:
        # A few ahead of the writer, so that memory holds a few row groups and not the file.
        waiting = deque(workers.submit(encode, groups) for groups in todo[: 2 * WORKERS])
        for index in range(len(todo)):
            if index + 2 * WORKERS < len(todo):
                waiting.append(workers.submit(encode, todo[index + 2 * WORKERS]))
            yield waiting.popleft().result()


def _used(feature_plans: list[FeaturePlan], schema: Schema, keys: EventsConfig) -> list[str]:
    """The raw columns that encoding needs."""
    names = [column for plan in feature_plans for column in plan.raw]
    names += task_columns(task.name for task in schema.tasks)
    names += [SERVED_ROW] if keys.served else []
    return list(dict.fromkeys([*names, keys.user or SHUFFLE_KEY, keys.item or SHUFFLE_KEY, TIME]))


def _encode_rows(
    raw: pa.Table, columns: dict[str, pa.Array], feature_plans: list[FeaturePlan], encoder: Encoder, fitted: Fitted,
    keys: EventsConfig, served: ServedValues | None,
) -> pa.Table:  # fmt: skip
    """Encode what is not among the `columns` yet."""
    for plan, spec in zip(feature_plans, encoder.schema.features, strict=True):
        if spec.name not in columns:
            values = raw_values(raw, plan, fitted.priors)
            refuse_by_policy(spec, values)
            columns[spec.name] = encode_feature(encoder, spec, values)
    if served is not None:
        columns = served.replace(raw, columns, encoder)
    for task in encoder.schema.tasks:
        label, weight = label_column(task.name), weight_column(task.name)
        columns[label] = raw[label].fill_null(0.0).cast(pa.float32())
        columns[weight] = raw[weight].cast(pa.float32())
        _check_finite(columns, label, weight)
    columns |= {USER_HASH: pa.array(key_hashes(raw, keys.user)), ITEM_HASH: pa.array(key_hashes(raw, keys.item))}
    return pa.table({**columns, TIME: raw[TIME]})


def encode_feature(encoder: Encoder, spec: FeatureSpec, values: pa.Array) -> pa.Array:
    """One encoded column: int32, list of int32 or float32."""
    if isinstance(spec, DenseSpec):
        return pa.array(encoder.dense(spec, values))
    if spec.kind == "id":
        return pa.array(encoder.ids(spec, values))
    return encoder.lists(spec, values).to_arrow()


def _check_finite(columns: dict[str, pa.Array], *names: str) -> None:
    for name in names:
        if not np.isfinite(columns[name].to_numpy()).all():
            kind, _, task = name.partition("__")
            message = f"task {task!r} has a {kind} that is not a finite number"
            raise DataError(message)
        if name.startswith("weight__") and (columns[name].to_numpy() < 0).any():
            least, task = float(np.min(columns[name].to_numpy())), name.removeprefix("weight__")
            message = (
                f"task {task!r} has a negative weight, such as {least:g}, with which a loss has no minimum; it is 0 "
                "(the row does not count) or more: mend data.tasks[].weight, for example with greatest(..., 0)"
            )
            raise DataError(message)


def _arrow_type(spec: FeatureSpec) -> pa.DataType:
    if isinstance(spec, IdSpec):
        return pa.int32() if spec.kind == "id" else pa.list_(pa.int32())
    return pa.float32()


class _RowGroups:
    """Writes `total` rows as row groups of equal size, however many come at a time."""

    def __init__(self, path: Path, schema: pa.Schema, total: int) -> None:
        self._size = -(-total // max(1, round(total / GROUP_ROWS)))
        self._writer = AtomicWriter(path, schema, group_rows=self._size, statistics=False, repeating=_repeating(schema))
        self._waiting: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        """Append rows; they are kept until they fill a row group."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._size:
            table = pa.concat_tables(self._waiting)
            full = len(table) // self._size * self._size
            self._writer.write(table.slice(0, full))
            self._waiting = [table.slice(full)]

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and any(map(len, self._waiting)):
            self._writer.write(pa.concat_tables(self._waiting))
        self._writer.__exit__(kind, error, trace)
