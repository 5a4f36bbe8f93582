"""Encoded training files with labels that can be learned, as the feature step would leave them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from contract.inputs import PARTS, Inputs
from contract.schema import Schema
from tests.encoded_rows import write_dataset
from tests.models.small import inputs

SIZES = {"train": 2048, "valid": 512, "test": 512}


def write_features(
    directory: Path,
    schema: Schema,
    *,
    seed: int = 0,
    train_rows: int = SIZES["train"],
    broken: dict[str, float] | None = None,
    broken_rows: int = 1,
    rows_per_user: int = 1,
) -> Path:
    """Write ``train``, ``valid`` and ``test`` and the schema; labels follow item, age and price.

    `broken` are columns of the training rows with a value that so many rows from the middle on get; a weight is given
    to every row.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for place, (split, rows) in enumerate({**SIZES, "train": train_rows}.items()):
        rng = np.random.default_rng([seed, place])
        given = inputs(schema, rows, rows, seed=seed * 10 + place)
        columns = _columns(given, schema)
        taste = np.sin(given.candidate.ids[:, 0]) + given.request.dense[:, 0] + 0.5 * given.candidate.dense[:, 0]
        like = (taste + rng.normal(0, 0.3, rows) > 1.0).astype(np.float32)
        rating = (3.5 + 0.8 * taste + rng.normal(0, 0.2, rows)).astype(np.float32)
        columns |= {"label__like": like, "label__rating": rating}
        columns |= {"weight__like": np.ones(rows, np.float32), "weight__rating": np.ones(rows, np.float32)}
        columns |= {
            "__user": np.arange(rows, dtype=np.uint64) // np.uint64(rows_per_user),
            "__item": np.arange(rows, dtype=np.uint64),
        }
        for name, value in (broken or {}).items() if split == "train" else ():
            column = np.array(columns[name])
            middle = slice(rows // 2, rows // 2 + broken_rows)
            column[slice(None) if name.startswith("weight") else middle] = value
            columns[name] = column
        write_dataset(directory / split, [pa.table(columns)], schema)
    schema.save(directory)
    return directory


def _columns(given: Inputs, schema: Schema) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name in PARTS:
        part, specs = getattr(given, name), schema.part(name)
        ends = np.concatenate([[0], np.cumsum(part.list_lengths.sum(axis=1))])
        for place, spec in enumerate(specs.ids):
            columns[spec.name] = part.ids[:, place].astype(np.int32)
        for place, spec in enumerate(specs.lists):
            offsets = np.concatenate([[0], np.cumsum(part.list_lengths[place])]).astype(np.int32)
            values = part.list_values[ends[place] : ends[place + 1]].astype(np.int32)
            columns[spec.name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        columns |= {spec.name: part.dense[:, place] for place, spec in enumerate(specs.dense)}
    return columns
