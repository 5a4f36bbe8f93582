"""The rows, the schema and the settings of `benchmarks.training`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from contract.columns import ITEM_HASH, USER_HASH, label_column, weight_column
from contract.dataset import EncodedWith
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from features.batches import BatchReader
from models.model_config import ModelConfig
from pipeline.training.train_config import TrainConfig

BATCH, IDS, DENSE, TASKS, DIM = 4096, 20, 10, 4, 16
EXPERTS, EXPERT_WIDTHS, TOWER = 8, (256, 128), 64
ZIPF, RATE = 1.05, 0.3


@dataclass(frozen=True)
class World:
    """Encoded rows on disk; `batches` are the same in memory: ids [B, 20], dense [B, 10], labels [B, 4]."""

    folder: Path
    schema: Schema
    rows: int
    table_rows: int

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """All rows, in the order of the file."""
        arrays = []
        for batch in BatchReader(self.folder / "train", self.schema, BATCH).epoch():
            part = batch.inputs.candidate
            arrays.append(tuple(torch.from_numpy(np.array(a)) for a in (part.ids, part.dense, batch.labels)))
        return [(ids, dense, labels) for ids, dense, labels in arrays]


def make_world(folder: Path, *, quick: bool) -> World:
    """Write 40 batches (quick: 4) of ids whose frequencies fall by Zipf's law."""
    table_rows, batches = (5_000, 4) if quick else (95_000, 40)
    rows = batches * BATCH
    ids = [IdSpec(name=f"id{n}", kind="id", side="item", rows=table_rows) for n in range(IDS)]
    dense = [DenseSpec(name=f"x{n}", side="item", encoding="standardise") for n in range(DENSE)]
    tasks = tuple(TaskSpec(name=f"task{n}", kind="binary", base_rate=RATE) for n in range(TASKS))
    schema = Schema(features=(*ids, *dense), tasks=tasks)
    rng = np.random.default_rng(0)
    chances = np.arange(1, table_rows + 1, dtype=np.float64) ** -ZIPF
    steps = np.cumsum(chances / chances.sum())
    columns: dict[str, object] = {}
    for spec in ids:
        drawn = np.searchsorted(steps, rng.random(rows)).clip(max=table_rows - 1)
        columns[spec.name] = rng.permutation(table_rows)[drawn].astype(np.int32)
    columns |= {spec.name: rng.standard_normal(rows, dtype=np.float32) for spec in dense}
    columns |= {label_column(task.name): (rng.random(rows) < RATE).astype(np.float32) for task in tasks}
    columns |= {weight_column(task.name): np.ones(rows, np.float32) for task in tasks}
    columns |= {name: rng.integers(0, 1 << 62, rows).astype(np.uint64) for name in (USER_HASH, ITEM_HASH)}
    table = pa.table(columns).replace_schema_metadata(
        EncodedWith(schema_fingerprint=schema.fingerprint(), encoding="").metadata()
    )
    schema.save(folder)
    for split, part in {"train": table, "valid": table.slice(0, BATCH)}.items():
        pq.write_table(part, folder / split, row_group_size=16_384, use_dictionary=False)
    return World(folder, schema, rows, table_rows)


def model_of(*, defaults: bool) -> ModelConfig:
    """The bare form, or what a recipe gets that says no more than the sizes."""
    sizes = {"embedding_dim": DIM, "experts": EXPERTS, "expert_widths": EXPERT_WIDTHS, "tower_widths": (TOWER,)}
    if defaults:
        return ModelConfig.model_validate(sizes)
    bare = {"norm": "none", "input_norm": "none", "routing_norm": "none", "dropout": 0.0, "id_dropout": 0.0}
    return ModelConfig.model_validate({**sizes, **bare, "activation": "relu", "gate": {"name": "softmax"}})


def config_of(precision: str) -> TrainConfig:
    """The settings of every form."""
    return TrainConfig.model_validate({"epochs": 1, "batch_size": BATCH, "precision": precision})
