"""Predictions on raw days as a file: raw ids, labels, answers and experts, a few thousand rows in memory at a time."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.columns import (
    ITEM_HASH,
    KEY,
    TIME,
    USER_HASH,
    label_column,
    prediction_column,
    weight_column,
)
from contract.dataset import SCHEMA_KEY
from contract.hashing import hash_array
from contract.inputs import Batch
from features.batches import BatchReader
from features.encode_days import EncodedDays, EncodedPart
from features.source.parquet_files import AtomicWriter
from pipeline.evaluation.predictions import BATCH_ROWS, Progress
from serving.graph.answer import ExpertUse
from serving.graph.engine import Engine

EXPERTS = "experts__"


def predict_days(bundle: Path, days: EncodedDays, out: Path, progress: Progress | None = None) -> int:
    """Score encoded days with a bundle's graph and write ``predictions.parquet``'s columns and more.

    Beside ``__user``, ``__item``, ``__time``, labels, weights and predictions there are the raw ids and the row's key
    under their own names, ``__key`` for the key's hash, and for each level and task ``experts__LEVEL__TASK`` with the
    numbers of the experts that the task's gates used for the row.

    Returns:
        The rows written.

    Raises:
        SchemaMismatchError: the rows were encoded for another bundle.
        PredictionError: the graph fails.
    """
    engine = Engine(bundle)
    total = sum(int(part.wanted.sum()) for part in days.parts)
    tables = (table for part in days.parts for table in _tables(engine, part, days))
    first = next(tables)
    schema = first.schema.with_metadata({SCHEMA_KEY: engine.schema.fingerprint()})
    with AtomicWriter(out, schema) as writer:
        for table in chain([first], tables):
            writer.write(table.cast(schema))
            if progress is not None:
                progress(writer.rows, total)
    return total


def notes_on_key(file: Path, row_key: str | None) -> list[str]:
    """What to say where the key of written predictions is the same in several rows; 8 bytes of memory a row."""
    if row_key is None:
        return []
    keys = pq.read_table(file, columns=[KEY])[KEY].to_numpy()
    distinct = np.unique(keys).size
    if distinct == keys.size:
        return []
    repeats = f"{row_key!r} does not tell rows apart: {keys.size:,} rows have {distinct:,} of its values"
    return [f"{repeats}; `moerank compare` will match them by user, item and time instead"]


def _tables(engine: Engine, part: EncodedPart, days: EncodedDays) -> Iterator[pa.Table]:
    """The rows of a part, a batch at a time."""
    row_key = [] if days.row_key is None else [days.row_key]
    raw = part.raw(list(dict.fromkeys([*days.keys, *row_key, TIME])))
    if days.row_key is not None:
        raw = raw.append_column(KEY, pa.array(hash_array(raw[days.row_key])))
    begin = 0
    for batch in BatchReader(part.file, engine.schema, BATCH_ROWS).epoch():
        answers, use = engine.predict_with_experts(batch.inputs)
        yield _table(raw.slice(begin, batch.rows), batch, answers, use)
        begin += batch.rows


def _table(raw: pa.Table, batch: Batch, answers: dict[str, Any], use: ExpertUse) -> pa.Table:
    columns: dict[str, Any] = {name: raw[name] for name in raw.column_names if name != TIME}
    columns |= {USER_HASH: batch.user, ITEM_HASH: batch.item, TIME: raw[TIME]}
    for place, (task, values) in enumerate(answers.items()):
        columns[label_column(task)] = batch.labels[:, place]
        columns[weight_column(task)] = batch.weights[:, place]
        columns[prediction_column(task)] = values
    return pa.table(columns | expert_columns(use))


def expert_columns(use: ExpertUse) -> dict[str, pa.Array]:
    """By column the experts that each row used; a task may have several gates on a level."""
    used: dict[str, NDArray[np.bool_]] = {}
    for gate in use.gates:
        for task in gate.tasks:
            name = f"{EXPERTS}{gate.level}__{task}"
            used[name] = (gate.weights != 0) | used.get(name, False)
    return {name: _numbers(used_NE) for name, used_NE in used.items()}


def _numbers(used_NE: NDArray[np.bool_]) -> pa.ListArray:
    rows, experts = np.nonzero(used_NE)
    offsets = np.searchsorted(rows, np.arange(len(used_NE) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(experts.astype(np.int16)))
