"""Encoded rows for the tiny bundle, labelled by drawing from its own predictions, so that the model is good on them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from contract.hashing import hash_array
from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, FeatureSpec, Part, Schema
from features.source.parquet_files import write_table
from serving.graph.engine import Engine
from tests.encoded_rows import stamped
from tests.tiny_bundle import USERS


def write_rows(path: Path, engine: Engine, rows: int, *, seed: int, first_user: int = 0, users: int = 60) -> None:
    """Write `rows` rows of users `first_user` and on; labels follow `engine`, rating with a noise of 0.3."""
    rng = np.random.default_rng(seed)
    user = rng.integers(first_user, first_user + users, rows)
    columns: dict[str, pa.Array] = {}
    for spec in engine.schema.features:
        columns[spec.name] = _column(spec, rows, rng)
    columns["user_id"] = pa.array((user % (len(USERS) + 1)).astype(np.int32))
    answers = engine.predict(_inputs(engine.schema, columns))
    like, rating = (task.name for task in engine.schema.tasks)
    columns[f"label__{like}"] = pa.array((rng.random(rows) < answers[like]).astype(np.float32))
    columns[f"label__{rating}"] = pa.array((answers[rating] + rng.normal(scale=0.3, size=rows)).astype(np.float32))
    columns[f"weight__{like}"] = pa.array(np.ones(rows, np.float32))
    columns[f"weight__{rating}"] = pa.array((rng.random(rows) < 0.8).astype(np.float32))
    table = pa.table(columns)
    table = table.append_column("__user", pa.array(hash_array(pa.array(user))))
    table = table.append_column("__item", pa.array(hash_array(columns["item_id"])))
    table = table.append_column("__time", pa.array(np.arange(rows, dtype=np.int64)))
    write_table(stamped(table, engine.schema), path)


def _column(spec: FeatureSpec, rows: int, rng: np.random.Generator) -> pa.Array:
    if isinstance(spec, DenseSpec):
        return pa.array(rng.random(rows).astype(np.float32))
    if spec.kind == "id":
        return pa.array(rng.integers(0, spec.rows, rows).astype(np.int32))
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 4, rows))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, rng.integers(0, spec.rows, offsets[-1]).astype(np.int32))


def _inputs(schema: Schema, columns: dict[str, pa.Array]) -> Inputs:
    return Inputs(_part(schema.request, columns), _part(schema.candidate, columns))


def _part(part: Part, columns: dict[str, pa.Array]) -> PartInputs:
    rows = len(columns["user_id"])
    lists = [columns[spec.name] for spec in part.lists]
    ids = [columns[spec.name].to_numpy().astype(np.int64) for spec in part.ids]
    dense = [columns[spec.name].to_numpy() for spec in part.dense]
    return PartInputs(
        ids=np.stack(ids, axis=1) if ids else np.zeros((rows, 0), np.int64),
        list_values=np.concatenate([np.zeros(0, np.int64), *(c.values.to_numpy().astype(np.int64) for c in lists)]),
        list_lengths=np.array([np.diff(c.offsets.to_numpy()) for c in lists], np.int64).reshape(len(lists), rows),
        dense=np.stack(dense, axis=1) if dense else np.zeros((rows, 0), np.float32),
    )


def write_all(folder: Path, bundle: Path) -> tuple[Path, Path]:
    """Training and test rows; a third of the test's users are not in training."""
    engine = Engine(bundle, Schema.load(bundle))
    train, test = folder / "train.parquet", folder / "test.parquet"
    write_rows(train, engine, 3000, seed=1, users=60)
    write_rows(test, engine, 2000, seed=2, first_user=20, users=60)
    return train, test
