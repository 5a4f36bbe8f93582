"""Encoded rows for the tiny bundle, labelled by drawing from its own predictions, so that the model is good on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.hashing import hash_array
from features.inputs import Inputs, PartInputs
from features.parquet import write_table
from features.schema import Schema
from serving.engine import Engine
from tests.tiny_bundle import ITEMS, TABS, USERS


def write_rows(path: Path, engine: Engine, rows: int, *, seed: int, first_user: int = 0, users: int = 60) -> None:
    """Write `rows` rows of users `first_user` and on; labels follow `engine`, rating with a noise of 0.3."""
    rng = np.random.default_rng(seed)
    user = rng.integers(first_user, first_user + users, rows)
    columns: dict[str, NDArray[Any]] = {
        "user_id": (user % (len(USERS) + 1)).astype(np.int32),
        "tab": rng.integers(0, len(TABS) + 1, rows).astype(np.int32),
        "activity": rng.random(rows).astype(np.float32),
        "item_id": rng.integers(0, len(ITEMS) + 1, rows).astype(np.int32),
        "price": rng.normal(size=rows).astype(np.float32),
    }
    answers = engine.predict(_inputs(columns))
    like, rating = (task.name for task in engine.schema.tasks)
    columns[f"label__{like}"] = (rng.random(rows) < answers[like]).astype(np.float32)
    columns[f"label__{rating}"] = (answers[rating] + rng.normal(scale=0.3, size=rows)).astype(np.float32)
    columns[f"weight__{like}"] = np.ones(rows, np.float32)
    columns[f"weight__{rating}"] = (rng.random(rows) < 0.8).astype(np.float32)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.append_column("__user", pa.array(hash_array(pa.array(user))))
    table = table.append_column("__item", pa.array(hash_array(pa.array(columns["item_id"]))))
    write_table(table.append_column("__time", pa.array(np.arange(rows, dtype=np.int64))), path)


def _inputs(columns: dict[str, NDArray[Any]]) -> Inputs:
    rows = len(columns["tab"])

    def part(ids: list[str], dense: list[str]) -> PartInputs:
        return PartInputs(
            ids=np.stack([columns[name].astype(np.int64) for name in ids], axis=1),
            list_values=np.zeros(0, np.int64),
            list_lengths=np.zeros((0, rows), np.int64),
            dense=np.stack([columns[name].astype(np.float32) for name in dense], axis=1),
        )

    return Inputs(part(["user_id", "tab"], ["activity"]), part(["item_id"], ["price"]))


def write_all(folder: Path, bundle: Path) -> tuple[Path, Path]:
    """Training and test rows; a third of the test's users are not in training."""
    engine = Engine(bundle, Schema.load(bundle))
    train, test = folder / "train.parquet", folder / "test.parquet"
    write_rows(train, engine, 3000, seed=1, users=60)
    write_rows(test, engine, 2000, seed=2, first_user=20, users=60)
    return train, test
