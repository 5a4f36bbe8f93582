"""The recipes against LightGBM on the same columns, over several seeds, on every public table.

``python -m benchmarks.bounds [--tables adult movielens kuairand] [--seeds 5] [--override model.k=v ...] [--json]``;
features are built once. Adult and MovieLens-100K must have been imported (``moerank import adult``), and KuaiRand-Pure
lie in ``KUAIRAND_DIR``. Adult and MovieLens are judged on the test rows, KuaiRand on its valid days, which also stop
LightGBM and choose the recipe's best epoch.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.paired import paired
from benchmarks.report import Case, arguments, finish
from benchmarks.trees import predictions, read_rows
from contract.schema import Schema
from features.batches import BatchReader
from models.ranker_tensors import TensorInputs
from pipeline.evaluation.metrics import auc, ece, rmse
from pipeline.flow.steps import build_features
from pipeline.project.project_config import read_config
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train

RECIPES = Path(__file__).parents[1] / "pipeline" / "recipes"
JUDGED = {"adult": "test", "movielens": "test", "kuairand": "valid"}
BOUNDS = {
    "kuairand is_click auc": 0.7530,
    "kuairand long_view auc": 0.7550,
    "kuairand is_like auc": 0.8797,
    "kuairand is_profile_enter auc": 0.7203,
    "kuairand watch rmse": 1.172,
    "adult income auc": 0.924,
    "adult never_married auc": 0.966,
    "adult income ece": 0.01,
    "adult never_married ece": 0.01,
}


@dataclass(frozen=True)
class Judged:
    """Figures by name such as ``income auc``, and the CPU seconds of training."""

    figures: dict[str, float]
    cpu: float


def judge(
    schema: Schema, answers: NDArray[np.float64], labels: NDArray[np.float32], weights: NDArray[np.float32]
) -> dict[str, float]:
    """AUC and ECE of binary tasks, RMSE of the others, over the rows to which each applies."""
    figures = {}
    for place, task in enumerate(schema.tasks):
        rows = weights[:, place] > 0
        truth, scores = labels[rows, place].astype(np.float64), answers[rows, place]
        if task.kind == "binary":
            figures[f"{task.name} auc"] = auc(truth, scores)
            figures[f"{task.name} ece"] = ece(truth, scores)
        else:
            figures[f"{task.name} rmse"] = rmse(truth, scores)
    return figures


def of_recipe(recipe: Path, seed: int, overrides: Sequence[str]) -> Judged:
    """Train a recipe with one seed and judge its best epoch."""
    config = read_config(recipe, [f"train.seed={seed}", *overrides])
    schema = Schema.load(config.features_dir)
    started = time.process_time()
    with TemporaryDirectory() as folder:
        train(config.features_dir, config.model, config.train, Path(folder), say=lambda _: None)
        cpu = time.process_time() - started
        ranker = load_ranker(Path(folder), schema).eval()
    batches = list(BatchReader(config.features_dir / JUDGED[recipe.stem], schema, 8192).epoch())
    with torch.no_grad():
        answers = [ranker.predictions(ranker(TensorInputs.from_numpy(b.inputs)).logits_BT).numpy() for b in batches]
    labels, weights = (np.concatenate([getattr(b, name) for b in batches]) for name in ("labels", "weights"))
    return Judged(judge(schema, np.concatenate(answers).astype(np.float64), labels, weights), cpu)


def of_trees(recipe: Path) -> Judged:
    """Train LightGBM on the recipe's columns."""
    features = read_config(recipe).features_dir
    schema = Schema.load(features)
    rows = {split: read_rows(features, schema, split) for split in {"train", "valid", JUDGED[recipe.stem]}}
    judged = rows[JUDGED[recipe.stem]]
    answers, cpu = predictions(schema, rows["train"], rows["valid"], judged)
    return Judged(judge(schema, answers, judged.labels, judged.weights), cpu)


def cases(table: str, runs: Sequence[Judged], trees: Judged) -> Iterator[Case]:
    """The recipe's means with their lowest and highest seed, and the differences to LightGBM with their interval."""
    for name, tree in trees.figures.items():
        values = [run.figures[name] for run in runs]
        unit = name.rpartition(" ")[2]
        better: Literal["lower", "higher"] = "higher" if unit == "auc" else "lower"
        bound, spread = BOUNDS.get(f"{table} {name}"), (min(values), max(values))
        yield Case(f"{table} {name}", statistics.fmean(values), unit, bound, better, len(values), spread)
        yield Case(f"{table} {name}, LightGBM", tree, unit, None, better, 1, (tree, tree))
        gap = paired(values, [tree] * len(values))
        yield Case(f"{table} {name} - LightGBM's", gap.mean, unit, None, better, len(values), (gap.low, gap.high))
    ratios = [run.cpu / trees.cpu for run in runs]
    spread = (min(ratios), max(ratios))
    yield Case(f"{table} CPU time / LightGBM's", statistics.fmean(ratios), "times", 1.5, "lower", len(ratios), spread)


def main() -> int:
    """Train and judge everything, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", default=list(JUDGED), choices=list(JUDGED), help="(default all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 (default 5)")
    parser.add_argument("--override", nargs="*", default=[], help="changes to the recipe, such as model.gate.k=1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Case] = []
    for table in options.tables:
        recipe = RECIPES / f"{table}.yaml"
        build_features(read_config(recipe))
        runs = [of_recipe(recipe, seed, options.override) for seed in range(options.seeds)]
        rows += cases(table, runs, of_trees(recipe))
    return finish("bounds", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
