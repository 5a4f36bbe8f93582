"""Runs of a recipe, trained and judged once: the figures of each stay in a file beside its features."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.trees import SETTINGS, predictions, read_rows
from contract.digests import digest_of
from contract.schema import Schema, TaskSpec
from features.batches import BatchReader
from features.feature_config import AsOf
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.evaluation.metrics import auc, ece, rmse
from pipeline.flow.steps import build_features
from pipeline.project import draft_recipe
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_log import HISTORY_FILE

RECIPES = Path(__file__).parents[1] / "pipeline" / "recipes"
JUDGED = {
    "adult": "test",
    "movielens": "test",
    "movielens_random": "test",
    "kuairand": "valid",
    "kuairand_event": "valid",
    "kuairand_recent": "valid",
}
"""The tables, and which of their rows are judged."""
_AT_RANDOM = ["workspace=runs/random", "data.split={by: random, valid: 0.05, test: 0.2}"]
_WINDOWS: dict[tuple[str, ...], list[str]] = {
    ("user_id",): ["1h", "1d", "all"],
    ("user_id", "tab"): ["6h", "all"],
    ("video_id",): ["1d", "all"],
}
_MORE_RATES: list[dict[str, Any]] = [
    {"by": ["author_id", "tab"], "of": ["is_click", "long_view", "watch"]},
    {"by": ["user_id", "video_type"], "of": ["is_click", "long_view"]},
]
_BEST_IN_CLICKS = "train.early_stopping={metric: is_click, patience: 2}"
DEFAULTS = ["model={}", "train={}"]
"""A recipe without what it says of model and training."""
DRAFTED = [f"model={draft_recipe.MODEL}", f"train={draft_recipe.TRAIN}"]
"""A recipe with what `moerank init` writes of them."""


@dataclass(frozen=True)
class Judged:
    """Figures by name such as ``income auc``, CPU seconds of training, and the share of experts that a row needs."""

    figures: dict[str, float]
    cpu: float
    union: float = 1.0


@dataclass(frozen=True)
class Answers:
    """Predictions, labels and weights of a split [N, T]."""

    schema: Schema
    predictions: NDArray[np.float64]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]

    def tasks(self) -> Iterator[tuple[TaskSpec, NDArray[np.float64], NDArray[np.float64]]]:
        """Each task with labels and predictions of the rows to which it applies."""
        for place, task in enumerate(self.schema.tasks):
            rows = self.weights[:, place] > 0
            yield task, self.labels[rows, place].astype(np.float64), self.predictions[rows, place]

    def figures(self) -> dict[str, float]:
        """AUC and ECE of binary tasks, RMSE of the others."""
        found = {}
        for task, truth, scores in self.tasks():
            if task.kind == "binary":
                found[f"{task.name} auc"] = auc(truth, scores)
                found[f"{task.name} ece"] = ece(truth, scores)
            else:
                found[f"{task.name} rmse"] = rmse(truth, scores)
        return found


def recipe_of(table: str, seed: int, overrides: Sequence[str]) -> ProjectConfig:
    """A table's recipe with one seed and some changes.

    ``movielens_random`` is MovieLens split at random, 80/20; ``kuairand_event`` is KuaiRand with rates up to the row's
    own moment in place of those up to the end of the day before, and ``kuairand_recent`` also has rates of the last
    hour and day, how long ago a user's last event was, and the epoch that is best in clicks.
    """
    name, _, form = table.partition("_")
    recipe = RECIPES / f"{name}.yaml"
    given = _AT_RANDOM if form == "random" else []
    if form == "event":
        given = ["workspace=runs/event", rates_up_to("event", recipe)]
    if form == "recent":
        given = ["workspace=runs/recent", _recent_rates(recipe), _BEST_IN_CLICKS]
    return read_config(recipe, [*given, *overrides, f"train.seed={seed}"])


def rates_up_to(as_of: AsOf, recipe: Path) -> str:
    """The change of a recipe by which all its aggregates count events up to the row, the last hour or the last day."""
    aggregates = [each.model_dump(mode="json") | {"as_of": as_of} for each in read_config(recipe, []).data.aggregates]
    return f"data.aggregates={json.dumps(aggregates)}"


def _recent_rates(recipe: Path) -> str:
    """The change of a recipe by which its rates of all time stand beside those of the last hours and days."""
    recent = []
    for each in read_config(recipe, []).data.aggregates:
        more = {"as_of": "event", "windows": _WINDOWS.get(each.by, ["all"]), "since": each.by[0] == "user_id"}
        recent.append(each.model_dump(mode="json") | more)
    return f"data.aggregates={json.dumps([*recent, *_MORE_RATES])}"


def of_model(table: str, config: ProjectConfig, run_dir: Path | None = None) -> Judged:
    """Train, and judge the best epoch; in `run_dir`, where it stays, or nowhere."""
    settings = [part.model_dump(mode="json") for part in (config.model, config.train)]
    with TemporaryDirectory() as folder:
        place = run_dir or Path(folder)
        return _once(table, config, settings, lambda: _trained(config, JUDGED[table], place), kept=run_dir)


def _emptied(run_dir: Path) -> Path:
    """A run of other settings in the same place would be gone on with."""
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    return run_dir


def of_trees(table: str, config: ProjectConfig, *, ids_as_numbers: bool = False) -> Judged:
    """Train LightGBM on the recipe's columns."""
    settings = ["LightGBM", SETTINGS, ids_as_numbers]
    return _once(table, config, settings, lambda: _grown(config, JUDGED[table], ids_as_numbers=ids_as_numbers))


def _once(
    table: str, config: ProjectConfig, settings: list[Any], make: Callable[[], Judged], kept: Path | None = None
) -> Judged:
    """Look a run up, or make it and write it down; a directory that is to be `kept` must be there, too."""
    built = build_features(config).result
    of_rows = built["fingerprint"], built["rows"], JUDGED[table]
    ledger = config.root / "judged.jsonl"
    known = known_run(ledger, settings, of_rows)
    if known is not None and (kept is None or kept.is_dir()):
        return known
    judged = make()
    with ledger.open("a", encoding="utf-8") as lines:
        key = digest_of(settings, *of_rows)
        lines.write(json.dumps({"key": key, "settings": settings, **asdict(judged)}) + "\n")
    return judged


def _grown(config: ProjectConfig, split: str, *, ids_as_numbers: bool) -> Judged:
    answers, cpu = grown(config, split, ids_as_numbers=ids_as_numbers)
    return Judged(answers.figures(), cpu)


def grown(config: ProjectConfig, split: str, *, ids_as_numbers: bool) -> tuple[Answers, float]:
    """LightGBM's answers to a split, and the CPU seconds of its training."""
    features = config.features_dir
    schema = Schema.load(features)
    rows = {name: read_rows(features, schema, name) for name in {"train", "valid", split}}
    judged = rows[split]
    answers, cpu = predictions(schema, rows["train"], rows["valid"], judged, ids_as_numbers=ids_as_numbers)
    return Answers(schema, answers, judged.labels, judged.weights), cpu


def _trained(config: ProjectConfig, split: str, run_dir: Path) -> Judged:
    _emptied(run_dir)
    started = time.process_time()
    result = train(config.features_dir, config.model, config.train, run_dir, say=_silent)
    cpu = time.process_time() - started
    epochs = json.loads((run_dir / HISTORY_FILE).read_text(encoding="utf-8"))["epochs"]
    union = float(epochs[result["best_epoch"] - 1]["experts"]["union_over_n"])
    return Judged(answers_of(config, split, run_dir).figures(), cpu, union)


def answers_of(config: ProjectConfig, split: str, run_dir: Path) -> Answers:
    """The answers of a run's best epoch to a split."""
    return ranker_answers(load_ranker(run_dir, Schema.load(config.features_dir)), config.features_dir / split)


@torch.no_grad()
def ranker_answers(ranker: Ranker, split: Path) -> Answers:
    """A model's answers to the rows of a split."""
    batches = list(BatchReader(split, ranker.schema, 8192).epoch())
    forward = ranker.eval()
    answers = [forward.predictions(forward(TensorInputs.from_numpy(b.inputs)).logits_BT).numpy() for b in batches]
    labels, weights = (np.concatenate([getattr(b, name) for b in batches]) for name in ("labels", "weights"))
    return Answers(ranker.schema, np.concatenate(answers).astype(np.float64), labels, weights)


def known_run(ledger: Path, settings: list[Any], of_rows: tuple[Any, ...]) -> Judged | None:
    """The newest run of these settings on these rows; a setting that there was not yet counts by its default."""
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    for entry in map(json.loads, reversed(lines)):
        same_rows = entry["key"] == digest_of(entry["settings"], *of_rows)
        if same_rows and _completed(entry["settings"]) == settings:
            return Judged(entry["figures"], entry["cpu"], entry["union"])
    return None


def _completed(settings: list[Any]) -> list[Any]:
    if settings[0] == "LightGBM":
        return settings
    parts = (ModelConfig.model_validate(settings[0]), TrainConfig.model_validate(settings[1]))
    return [part.model_dump(mode="json") for part in parts]


def _silent(text: str) -> None:
    if os.environ.get("BENCH_SHOW"):
        print(text, flush=True)
