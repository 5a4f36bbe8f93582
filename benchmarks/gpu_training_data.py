"""The training benchmark's sizes and rows: Zipf ids, dense columns, four tasks; as encoded Parquet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contract.columns import label_column, weight_column
from contract.dataset import DatasetManifest, DatasetPart, EncodedWith
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema, TaskSpec
from contract.sha256 import sha256_of
from features.encode.write_splits import GROUP_ROWS
from features.source.parquet_files import AtomicWriter
from models.model_config import ModelConfig

ZIPF, DRAWN = 1.2, 1_000_000


@dataclass(frozen=True)
class TrainingSizes:
    """How large things are: as the bounds say, or tiny, to run every line on a CPU."""

    features: int = 20
    rows: int = 100_000
    dim: int = 16
    dense: int = 10
    experts: int = 8
    widths: tuple[int, int] = (256, 128)
    tasks: int = 4
    batches: tuple[int, ...] = (4096, 16384, 65536)
    steps: int = 40
    warm_up: int = 10
    kept: int = 2**22
    """Rows on disk: more than the smaller batches take, so that no epoch ends while their steps are timed."""


TINY = TrainingSizes(3, 50, 8, 2, 2, (16, 8), 2, (32,), 3, 1, 192)


def schema_of(sizes: TrainingSizes) -> Schema:
    """Ids of user and item by turns, dense columns of the item, binary tasks."""
    ids: list[FeatureSpec] = [
        IdSpec(name=f"id{i}", kind="id", side="user" if i % 2 else "item", rows=sizes.rows)
        for i in range(sizes.features)
    ]
    dense = [DenseSpec(name=f"x{i}", side="item", encoding="standardise") for i in range(sizes.dense)]
    tasks = tuple(TaskSpec(name=f"task{i}", kind="binary", base_rate=0.2) for i in range(sizes.tasks))
    return Schema(features=(*ids, *dense), tasks=tasks)


def config_of(sizes: TrainingSizes) -> ModelConfig:
    """Softmax gates: every expert for every row, as the floor computes."""
    settings: dict[str, Any] = {
        "embedding_dim": sizes.dim,
        "experts": sizes.experts,
        "expert_widths": sizes.widths,
        "tower_widths": (32,),
        "gate": {"name": "softmax"},
        "norm": "none",
        "dropout": 0.0,
        "id_dropout": 0.0,
        "activation": "relu",
    }
    return ModelConfig.model_validate(settings)


def table_of(sizes: TrainingSizes, rows: int) -> pa.Table:
    """Encoded rows as the feature step would leave them."""
    rng = np.random.default_rng(0)
    # Zipf's own draws take as long as training on them: these are drawn from a million of them.
    drawn = (rng.zipf(ZIPF, DRAWN) % sizes.rows).astype(np.int32)
    columns: dict[str, Any] = {f"id{i}": drawn[rng.integers(0, DRAWN, rows)] for i in range(sizes.features)}
    columns |= {f"x{i}": rng.normal(size=rows).astype(np.float32) for i in range(sizes.dense)}
    for task in range(sizes.tasks):
        columns[label_column(f"task{task}")] = (rng.random(rows) < 0.2).astype(np.float32)  # noqa: PLR2004 one in five
        columns[weight_column(f"task{task}")] = np.ones(rows, np.float32)
    columns |= {"__user": np.arange(rows, dtype=np.uint64), "__item": np.arange(rows, dtype=np.uint64)}
    table = pa.table(columns)
    return table.cast(pa.schema([field.with_nullable(nullable=False) for field in table.schema]))


def write_features(folder: Path, sizes: TrainingSizes, rows: int) -> Path:
    """A directory of features with so many training rows, and as many to validate on as one needs to begin."""
    schema = schema_of(sizes)
    encoded_with = EncodedWith(schema_fingerprint=schema.fingerprint(), encoding="of a benchmark")
    folder.mkdir(parents=True)
    schema.save(folder)
    for split, count in (("train", rows), ("valid", min(rows, 64))):
        directory = folder / split
        directory.mkdir()
        file = directory / "part-00000.parquet"
        table = table_of(sizes, count).replace_schema_metadata(encoded_with.metadata())
        # As the feature step writes its splits.
        repeating = [name for name in table.column_names if not name.startswith("__")]
        with AtomicWriter(file, table.schema, group_rows=GROUP_ROWS, statistics=False, repeating=repeating) as writer:
            writer.write(table)
        part = DatasetPart(file=file.name, rows=count, sha256=sha256_of(file), encoded_with=encoded_with)
        DatasetManifest(encoded_with=encoded_with, parts=(part,)).save(directory)
    return folder
