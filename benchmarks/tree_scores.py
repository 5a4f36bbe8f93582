"""LightGBM's answers as columns of the log, which a recipe takes in as features: a learned blend.

Answers to training rows come from boosters that were not trained on them (`benchmarks.tree_teacher`).
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.tree_teacher import answers_of_folds, keyed_answers
from benchmarks.trees import read_rows
from contract.columns import ITEM_HASH, TIME, USER_HASH, prediction_column
from contract.hashing import hash_array
from contract.schema import Schema
from features.table_config import EventsConfig
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig
from pipeline.training.teacher import row_keys


def with_tree_scores(config: ProjectConfig) -> list[str]:
    """The changes of a recipe by which a score of LightGBM's for each task is one of its features."""
    fingerprint = build_features(config).result["fingerprint"]
    path = config.root / f"tree-scores-{fingerprint}.parquet"
    schema = Schema.load(config.features_dir)
    scores = {f"trees_{task.name}": prediction_column(task.name) for task in schema.tasks}
    if not path.is_file():
        pq.write_table(scored_log(config.data.events, _answers(config, schema), scores), path)
    events = config.data.events.model_dump(mode="json")
    events |= {"path": str(path), "item_columns": [*config.data.events.item_columns, *scores]}
    features = [each.model_dump(mode="json", exclude_defaults=True) for each in config.data.features]
    features += [{"name": name, "kind": "dense", "bins": 64} for name in scores]
    blended = config.workspace.with_name(f"{config.workspace.name}-blended")
    return [
        f"workspace={blended}",
        f"data.events={json.dumps(events)}",
        f"data.features={json.dumps(features)}",
    ]


def _answers(config: ProjectConfig, schema: Schema) -> pa.Table:
    """Answers to the rows of both splits beside their keys."""
    train, valid = (read_rows(config.features_dir, schema, split) for split in ("train", "valid"))
    answers = zip(("train", "valid"), answers_of_folds(schema, train, valid), strict=True)
    return pa.concat_tables([keyed_answers(config.features_dir / split, schema, each) for split, each in answers])


def scored_log(events: EventsConfig, answers: pa.Table, scores: dict[str, str]) -> pa.Table:
    """The log with a column by name for each column of `answers`; it is null in rows that are in no split."""
    log = ds.dataset(Path(str(events.path)), partitioning="hive").to_table()
    times = log[events.time].combine_chunks().cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_numpy()
    keys_P = _keys(answers[USER_HASH], answers[ITEM_HASH], answers[TIME])
    keys_N = row_keys(hash_array(log[events.user]), hash_array(log[events.item]), times)
    order_P = np.argsort(keys_P, kind="stable")
    places_N = np.searchsorted(keys_P[order_P], keys_N)
    found_N = keys_P[order_P].take(places_N, mode="clip") == keys_N
    rows_N = pa.array(order_P.take(places_N, mode="clip"), mask=~found_N)
    for name, column in scores.items():
        log = log.append_column(name, answers[column].take(rows_N))
    return log


def _keys(user: pa.ChunkedArray, item: pa.ChunkedArray, time: pa.ChunkedArray) -> NDArray[np.uint64]:
    return row_keys(user.to_numpy(), item.to_numpy(), time.to_numpy())
