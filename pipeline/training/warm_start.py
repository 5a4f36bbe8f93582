"""Start from what an earlier run learned: tables by row, the network by feature, the optimisers' state if wished.

A night's data have more ids than the last one's, and at times other features. A row of a table goes to the row that
stands for the same value now, and is dropped where there is none; new values' rows start fresh. What reads the input
matrix is carried over column by column, by the features' names.

Shape legend: R rows of a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from contract.errors import DataError
from contract.hashing import hash_array
from contract.schema import Schema
from features.encode.vocabulary import VOCABULARY_FILE, Vocabularies
from models.sharding import Sharded
from models.weighting import Weighting
from pipeline.training.checkpoint import quietly, sound, state_of
from pipeline.training.column_map import ColumnMap
from pipeline.training.grow import grown
from pipeline.training.train_config import WarmConfig

ENCODING_FOLDER = "encoding"
"""Where a run keeps the schema and the vocabularies that it was trained with."""
_CARRIED = ("model", "optimizer", "weighting")
_TABLES = "embeddings.embedding_bags."
_PARTS = {"gates": ".gates.", "towers": "network.towers.", "tables": _TABLES}
_WORDS = {
    ".gates.": "gates",
    ".banks.": "experts",
    "network.towers.": "towers",
    "network.bottom.": "shared layers",
    "weighting.": "weights of losses",
}
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """Where training goes on from: a run, and the time of the last row that it was trained on (None: not known)."""

    run_dir: Path
    until: int | None = None


@dataclass(frozen=True)
class Carried:
    """What came over, for a person: tables with rows kept and fresh, and what starts fresh."""

    kept_rows: int
    fresh_rows: int
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        others = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"{self.kept_rows:,} rows of tables kept, {self.fresh_rows:,} fresh{others}"


def carry_over(run_dir: Path, features_dir: Path, sharded: Sharded, weighting: Weighting, warm: WarmConfig) -> Carried:
    """Copy what the best checkpoint of a run holds into a fresh model and, if wished, its optimisers.

    Raises:
        DataError: the run has no checkpoint, is of another model, or does not say what it was encoded with.
        IntegrityError: all its checkpoints are damaged.
    """
    directory, meta = sound(run_dir)
    ranker = sharded.ranker
    if meta.model != ranker.config and warm.grow is None:
        before, now = meta.model.model_dump(), ranker.config.model_dump()
        changed = sorted(name for name, value in before.items() if value != now[name])
        message = (
            f"{run_dir} was trained with another model ({', '.join(changed)} differ), whose weights do not fit; "
            "set train.start_from: none, configure the same model, or let experts grow by train.warm.grow"
        )
        raise DataError(message)
    old_schema = _schema_of(run_dir, meta.schema_fingerprint, ranker.schema)
    if warm.optimizer:
        for _, optimizer in sharded.optimizer.optimizers:
            if not optimizer.state_dict()["state"]:
                optimizer.init_state()
    state = state_of(sharded, weighting)
    rows = _row_maps(run_dir, old_schema, features_dir, ranker.schema)
    columns = ColumnMap.between(old_schema, ranker)
    old = _read(directory)
    if meta.model != ranker.config and warm.grow is not None:
        old = grown(old, meta.model, ranker.config, warm.grow, warm.grow_share, torch.initial_seed())
    carried = _copy(state, old, rows, columns, warm)
    sharded.model.load_state_dict(state["model"])
    if warm.optimizer:
        sharded.optimizer.load_state_dict(state["optimizer"])
    return carried


def keep_encoding(features_dir: Path, schema: Schema, run_dir: Path) -> None:
    """Keep beside a run the schema and the vocabularies that its tables' rows stand for."""
    folder = run_dir / ENCODING_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    schema.save(folder)
    vocabulary = features_dir / VOCABULARY_FILE
    if vocabulary.is_file():
        (folder / VOCABULARY_FILE).write_bytes(vocabulary.read_bytes())


def _schema_of(run_dir: Path, fingerprint: str, schema: Schema) -> Schema:
    if schema.fingerprint() == fingerprint:
        return schema
    for folder in (run_dir / ENCODING_FOLDER, run_dir / "export"):
        if (folder / "schema.json").is_file():
            earlier = Schema.load(folder)
            if earlier.fingerprint() == fingerprint:
                return earlier
    message = (
        f"{run_dir} was trained on other features and keeps no copy of their schema, so its rows cannot be told; "
        "export it first, or set train.start_from: none"
    )
    raise DataError(message)


def _row_maps(run_dir: Path, old: Schema, features_dir: Path, new: Schema) -> dict[str, Index]:
    """By table, for each row now the row that it was, -1 where it is new; [R] each."""
    both = {table: rows for table, rows in new.tables().items() if table in old.tables()}
    if old.vocabulary_sha256 == new.vocabulary_sha256:
        return {t: np.arange(rows, dtype=np.int64) for t, rows in both.items() if rows == old.tables()[t]}
    before, now = _vocabularies(run_dir, old), Vocabularies.load(
        features_dir, new.vocabulary_tables(), new.vocabulary_sha256
    )  # fmt: skip
    maps = {}
    for table, rows in both.items():
        if table in new.vocabulary_tables() and table in old.vocabulary_tables():
            maps[table] = row_map(before, now, table)
        elif rows == old.tables()[table]:
            maps[table] = np.arange(rows, dtype=np.int64)
    return maps


def row_map(before: Vocabularies, now: Vocabularies, table: str) -> Index:
    """For each row of a table now, the row of the same value before; -1 for new values; [R]."""
    values = now.values(table)
    earlier_rows = before.rows(table, hash_array(values)).astype(np.int64)
    earlier_rows[earlier_rows == 0] = -1
    reserved = np.asarray(values.is_null().to_numpy(zero_copy_only=False))
    # Rows without a value are kept for nulls and the unknown: what they stand for lies at the same place.
    places = np.arange(1, len(values) + 1)
    earlier_rows[reserved] = np.where(places < before.size(table), places, -1)[reserved]
    return np.concatenate([[0], earlier_rows])


def _vocabularies(run_dir: Path, schema: Schema) -> Vocabularies:
    for folder in (run_dir / ENCODING_FOLDER, run_dir / "export"):
        if (folder / VOCABULARY_FILE).is_file():
            return Vocabularies.load(folder, schema.vocabulary_tables(), schema.vocabulary_sha256)
    message = f"{run_dir} keeps no vocabulary, so its tables' rows cannot be told; set train.start_from: none"
    raise DataError(message)


def _read(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, whole."""
    reader = FileSystemReader(directory)
    stored = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {
        name: torch.empty(each.size, dtype=each.properties.dtype)
        for name, each in stored.items()
        if isinstance(each, TensorStorageMetadata)
    }
    with quietly():
        load_shards(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _copy(
    state: dict[str, Any], old: Mapping[str, Tensor], rows: Mapping[str, Index], columns: ColumnMap, warm: WarmConfig
) -> Carried:
    earlier_rows = fresh_rows = 0
    fresh: list[str] = []
    for name, value in flatten_state_dict(state)[0].items():
        part = name.partition(".")[0]
        if part not in _CARRIED or (part == "optimizer" and not warm.optimizer):
            continue
        if any(_PARTS[reset] in name for reset in warm.reset):
            fresh += [reset for reset in warm.reset if _PARTS[reset] in name and reset not in fresh]
            continue
        if isinstance(value, ShardedTensor) or _TABLES in name:
            table = name.partition(_TABLES)[2].partition(".")[0]
            index = rows.get(table)
            # A table with another optimiser than before has sums of squares of another shape.
            if index is None or name not in old or old[name].shape[1:] != _shape(value)[1:]:
                fresh.append(f"table {table}" if part == "model" else f"sums of squares of table {table}")
                continue
            _copy_rows(value, old[name], index)
            if part == "model":
                earlier_rows, fresh_rows = earlier_rows + int((index >= 0).sum()), fresh_rows + int((index < 0).sum())
        elif isinstance(value, Tensor) and not columns.copy(name, value, old.get(name)):
            fresh.append(_part_of(name))
    return Carried(earlier_rows, fresh_rows, tuple(sorted(set(fresh) - {""})))


def _shape(value: Any) -> torch.Size:
    return value.metadata().size if isinstance(value, ShardedTensor) else value.shape


def _part_of(name: str) -> str:
    """What a person calls the part of the model that a tensor belongs to; nothing for counters."""
    if name.endswith(("num_batches_tracked", "global_step", ".step")):
        return ""
    part = next((words for mark, words in _WORDS.items() if mark in name), name.partition(".")[2])
    return part if not name.startswith("optimizer.") else f"optimiser of {part}"


@torch.no_grad()
def _copy_rows(value: Any, old: Tensor, index_R: Index) -> None:
    shards = value.local_shards() if isinstance(value, ShardedTensor) else None
    pieces = [(value, 0)] if shards is None else [(s.tensor, s.metadata.shard_offsets[0]) for s in shards]
    for tensor, first in pieces:
        index_of_shard = torch.from_numpy(index_R[first : first + tensor.shape[0]])
        known = index_of_shard >= 0
        tensor[known.to(tensor.device)] = old[index_of_shard[known]].to(tensor.device, tensor.dtype)
