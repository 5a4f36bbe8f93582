"""Other columns of MovieLens-100K: vectors of films, boosted trees' scores, and longer histories to attend to.

``python -m benchmarks.gate_columns [--groups columns histories] [--seeds 5] [--epochs 8] [--json]``; needs ``moerank
import movielens``. Judged as `benchmarks.gates` judges; the baseline of ``histories`` has the same histories of 50
events, with genres and how long ago each was, and takes their mean. The films' vectors are the leading singular
vectors of who saw what, of training rows alone. The scores of training rows are of trees that were not trained on them;
those of the other rows of trees that were trained on all training rows. What is made lies below ``runs``.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.gate_variants import AS_IT_STANDS, overrides
from benchmarks.gates import RECIPES, cases, measure, table
from benchmarks.ledger import Figures, Ledger
from benchmarks.report import Case, arguments, finish
from benchmarks.tree_teacher import unseen_answers
from benchmarks.trees import predictions, read_rows
from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.dataset import EncodedDataset
from contract.hashing import hash_array
from contract.schema import Schema
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig, read_config

RECIPE = RECIPES / "movielens.yaml"
DATA = Path("data/movielens")
SPLITS = ("train", "valid", "test")
WIDTH = 16
KEYS = [USER_HASH, ITEM_HASH, TIME]


def with_vectors(plain: ProjectConfig) -> list[str]:
    """Give the changes by which films have a vector each, and make them."""
    path = Path("runs/vectors/items.parquet")
    if not path.is_file():
        items = pq.read_table(DATA / "items.parquet")
        vectors = film_vectors(keys_of(plain, "train"), hash_array(items["item_id"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(items.append_column("seen_by", pa.array(list(vectors), pa.list_(pa.float32()))), path)
    feature = {"name": "seen_by", "kind": "vector", "width": WIDTH}
    return ["workspace=runs/vectors", f"data.items.path={path}", _features(plain, [feature])]


def film_vectors(seen: pa.Table, films: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Vectors [films, width] of unit mean square: singular vectors of the users-by-films matrix, times their values."""
    users, user_N = np.unique(seen[USER_HASH].to_numpy(), return_inverse=True)
    place = {film: number for number, film in enumerate(films.tolist())}
    matrix_UF = np.zeros((len(users), len(films)))
    matrix_UF[user_N, [place[film] for film in seen[ITEM_HASH].to_pylist()]] = 1.0
    matrix_UF /= np.sqrt(np.maximum(matrix_UF.sum(axis=1, keepdims=True) * matrix_UF.sum(axis=0), 1.0))
    _, values, right = np.linalg.svd(matrix_UF, full_matrices=False)
    vectors = (values[:WIDTH, None] * right[:WIDTH]).T
    return (vectors / np.sqrt((vectors**2).mean())).astype(np.float32)


def with_scores(plain: ProjectConfig) -> list[str]:
    """Give the changes by which each row has the trees' score for every task, and make them."""
    path = Path("runs/scores/events.parquet")
    names = [f"trees_{task.name}" for task in plain.data.tasks]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(scored(pq.read_table(DATA / "events.parquet"), scores_of(plain, names)), path)
    features = [{"name": name, "kind": "dense"} for name in names]
    columns = f"data.events.item_columns={json.dumps(names)}"
    return ["workspace=runs/scores", f"data.events.path={path}", columns, _features(plain, features)]


def scores_of(config: ProjectConfig, names: list[str]) -> pa.Table:
    """Every row's keys and the trees' answers."""
    schema = Schema.load(config.features_dir)
    train, valid, test = (read_rows(config.features_dir, schema, split) for split in SPLITS)
    answers = [unseen_answers(schema, train, valid)]
    answers += [predictions(schema, train, valid, rows, ids_as_numbers=True)[0] for rows in (valid, test)]
    keys = pa.concat_tables([keys_of(config, split) for split in SPLITS])
    columns = np.concatenate(answers)
    return pa.table({**{key: keys[key] for key in KEYS}, **{n: columns[:, t] for t, n in enumerate(names)}})


def scored(events: pa.Table, scores: pa.Table) -> pa.Table:
    """The log with the scores beside each row, in its order."""
    order = pa.array(np.arange(len(events)))
    time = events["event_time"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    keys = {USER_HASH: hash_array(events["user_id"]), ITEM_HASH: hash_array(events["item_id"]), TIME: time}
    keyed = pa.table({**keys, "order": order}).join(scores, KEYS, join_type="left outer").sort_by("order")
    for name in scores.column_names[len(KEYS) :]:
        events = events.append_column(name, keyed[name])
    return events


def keys_of(config: ProjectConfig, split: str) -> pa.Table:
    """User, film and time of a split's rows."""
    return EncodedDataset.open(config.features_dir / split).read(KEYS)


def _features(plain: ProjectConfig, more: list[dict[str, Any]]) -> str:
    features = [feature.model_dump(mode="json") for feature in plain.data.features]
    return f"data.features={json.dumps([*features, *more])}"


def with_histories(plain: ProjectConfig, attention: str = "") -> list[str]:
    """Give the changes by which users have their last 50 films with genres and ages, attended or not."""
    liked = next(each for each in plain.data.histories if each.name == "last_liked").model_dump(mode="json")
    films = {"name": "last_items", "of": "item_id", "by": "user_id", "last": 50, "shares": "item_id"}
    films |= {"columns": {"last_genres": "first_genre"}, "elapsed": "last_ago"}
    beside = {"last_genres": "first_genre", "last_ago": None}
    attended: dict[str, Any] = {"name": attention, "beside": beside}
    if attention == "sim":
        attended |= {"search": "last_genres"}
    return [
        "workspace=runs/histories",
        'data.items.columns={"first_genre": "first(genres)"}',
        _features(plain, [{"name": "first_genre"}]),
        f"data.histories={json.dumps([films, liked])}",
        *([f"model.sequences={json.dumps({'last_items': attended})}"] if attention else []),
    ]


Change = Callable[[ProjectConfig], list[str]]
GROUPS: dict[str, dict[str, Change]] = {
    "columns": {AS_IT_STANDS: lambda _: [], "vectors of films": with_vectors, "trees' scores": with_scores},
    "histories": {
        "histories of 50": with_histories,
        "din": partial(with_histories, attention="din"),
        "sim by genre": partial(with_histories, attention="sim"),
    },
}
"""The variants of each group, whose baseline is the first."""


def figures_of(changes: list[str], seed: int, epochs: int, ledger: Ledger) -> Figures:
    """Train and judge the recipe with some changes, unless it was done before."""
    config = read_config(RECIPE, [*changes, *overrides("movielens", AS_IT_STANDS, seed, epochs)])
    blocks = [config.model.model_dump(mode="json"), config.train.model_dump(mode="json")]
    key = json.dumps([build_features(config).stamp, *blocks], sort_keys=True)
    return ledger.figures(key, partial(measure, config, config.features_dir))


def main() -> int:
    """Make the columns, train and judge with each, then print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="(default all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--epochs", type=int, default=8, help="of each run (default 8)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain, ledger = read_config(RECIPE), Ledger(Path("runs/gate_columns.jsonl"))
    build_features(plain)
    units = {task.name: "auc" if task.kind == "binary" else "rmse" for task in plain.data.tasks} | {"like gauc": "auc"}
    rows: list[Case] = []
    for group in options.groups:
        changes = {name: change(plain) for name, change in GROUPS[group].items()}
        figures: dict[str, list[Figures]] = {name: [] for name in changes}
        for seed in range(options.seeds):
            for name, runs in figures.items():
                runs.append(figures_of(changes[name], seed, options.epochs, ledger))
        print(f"{group}\n\n{table(figures, list(units))}", end="\n\n", flush=True)
        rows += cases(figures, units)
    return finish("gate_columns", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
