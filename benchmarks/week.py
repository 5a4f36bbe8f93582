"""A week of nights on KuaiRand-Pure: a model that goes on every night, one from nothing, one never trained again.

``KUAIRAND_DIR=... python -m benchmarks.week [--seeds 3] [--nights 7] [--arms NAME ...] [--plot FILE.svg]
[--json]``. The first
model is of 25 and 26 April (its epoch chosen on the 27th, which is not judged). Each of the following nights, 27 April
to 3 May, has one more day to train on and is judged on the day that comes next, whose rows choose nothing:

- ``warm`` goes on from the last night's model and passes once over the new day (the default of scheduled runs);
- ``warm, fresh optimiser`` and ``warm, replay`` do so without the optimisers' state, and with three earlier rows in
  ten; ``twice`` and ``half the rates`` scale all learning rates; ``replay, fresh tables`` starts the tables again each
  night (Fan et al. 2024) and passes over the new day and replayed rows; ``two passes`` goes twice over the new day and
  two earlier rows in ten;
- ``scratch`` trains on all days so far, for as many epochs as the recipe says; ``scratch, best epoch`` is the epoch
  that turned out best on the judged day, which nobody could have known that night;
- ``stale`` is the first model, whose features go on being up to date.

Seconds are CPU seconds of training with validation, one thread. Figures are kept beside the features and not measured
twice, so that more seeds can be added later.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ledger import Figures, Ledger
from benchmarks.paired import crossed
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.week_plot import drawing
from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.dataset import EncodedDataset
from contract.files import write_text
from contract.hashing import combine
from contract.schema import Schema
from features.batches import BatchReader
from models.ranker_tensors import TensorInputs
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train
from pipeline.training.training_log import HISTORY_FILE
from pipeline.training.validation import task_metrics
from pipeline.training.warm_start import Start

RECIPE = Path(__file__).parents[1] / "pipeline" / "recipes" / "kuairand.yaml"
FIRST = date(2022, 4, 26)
"""The last day of the first model."""
WARM: dict[str, list[str]] = {
    "warm": [],
    "warm, fresh optimiser": ["train.warm.optimizer=false"],
    "warm, replay": ["train.warm.replay=0.3"],
    "warm, twice the rates": ["train.warm.learning_rate_factor=2.0"],
    "warm, half the rates": ["train.warm.learning_rate_factor=0.5"],
    "warm, replay, half the rates": ["train.warm.replay=0.3", "train.warm.learning_rate_factor=0.5"],
    "warm, replay, half the rates, two passes": [
        "train.warm.replay=0.2",
        "train.warm.learning_rate_factor=0.5",
        "train.warm.epochs=2",
    ],
    "warm, replay, fresh tables": ["train.warm.replay=0.3", "train.warm.reset=[tables]"],
}
SCRATCH, HINDSIGHT, STALE, SECONDS, ROWS = "scratch", "scratch, best epoch", "stale", "seconds", "rows"
TASKS = ("is_click", "long_view", "is_like", "watch")
"""What the page shows: the other tasks have some tens of positive rows a day."""
DRAWN = (
    "warm",
    "warm, replay",
    "warm, half the rates",
    "warm, replay, half the rates",
    "warm, replay, half the rates, two passes",
    SCRATCH,
    STALE,
)
"""The arms in the plot."""
Key = tuple[str, int, date]
"""Arm, seed and night."""
Week = dict[str, list[list[Figures]]]
"""By arm and seed, each night's figures."""


class Nights(Ledger):
    """Figures by arm, seed and night."""

    def __contains__(self, key: Key) -> bool:
        return _text(key) in self.known

    def __getitem__(self, key: Key) -> Figures:
        return self.known[_text(key)]

    def add(self, arm: str, seed: int, night: date, figures: Figures) -> None:
        """Write figures down."""
        self.keep(_text((arm, seed, night)), figures)


def _text(key: Key) -> str:
    arm, seed, night = key
    return f"{arm}, seed {seed}, {night.isoformat()}"


class Trained(NamedTuple):
    """A run's figures after its last epoch and after its best, each with its CPU seconds and rows."""

    last: Figures
    best: Figures


def settings(workspace: Path, night: date, seed: int, *changes: str, all_later: bool = False) -> ProjectConfig:
    """The recipe on the days up to a night, judged on the next day or on all later ones."""
    judged = f"date {'>=' if all_later else '=='} '{night + timedelta(1)}'"
    split = {"by": "expression", "valid": judged}
    if not all_later:
        split["test"] = f"date > '{night + timedelta(1)}'"
    overrides = [
        f"workspace={workspace}",
        f"data.split={json.dumps(split)}",
        f"train.seed={seed}",
        "train.early_stopping=null",
    ]
    return read_config(RECIPE, [*overrides, *changes])


def train_once(config: ProjectConfig, run_dir: Path, start: Path | None, later_than: int | None) -> Trained:
    """Train, and read the judged day's metrics out of the history."""
    began = time.process_time()
    origin = None if start is None else Start(start, later_than)
    train(config.features_dir, config.model, config.train, run_dir, say=lambda _: None, start=origin)
    seconds = time.process_time() - began
    epochs = json.loads((run_dir / HISTORY_FILE).read_text(encoding="utf-8"))["epochs"]
    rows = sum(round(epoch["rows_per_second"] * epoch["seconds"]) for epoch in epochs)
    figures_by_epoch = [{task: v for task, m in epoch["valid"].items() for v in m.values()} for epoch in epochs]
    best = max(figures_by_epoch, key=lambda figures: figures["is_click"] + figures["long_view"] + figures["is_like"])
    return Trained(*({**figures, SECONDS: seconds, ROWS: rows} for figures in (figures_by_epoch[-1], best)))


def judge_stale(config: ProjectConfig, run_dir: Path) -> dict[date, Figures]:
    """The first model's metrics on each later day, by the night before it."""
    schema = Schema.load(config.features_dir)
    ranker = load_ranker(run_dir, schema)
    path = config.features_dir / "valid"
    scores, labels, weights = [], [], []
    with torch.no_grad():
        for batch in BatchReader(path, schema, 4096).epoch():
            scores.append(ranker.predictions(ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT).numpy())
            labels.append(batch.labels)
            weights.append(batch.weights)
    all_scores, all_labels, all_weights = (np.concatenate(parts) for parts in (scores, labels, weights))
    by_row = keys(EncodedDataset.open(path))
    figures_by_day = {}
    for judged, of_day in days_of(config.workspace.parent).items():
        rows = np.isin(by_row, of_day)
        metrics = {
            task.name: task_metrics(task, all_scores[rows, t], all_labels[rows, t], all_weights[rows, t])
            for t, task in enumerate(schema.tasks)
        }
        figures_by_day[judged] = {task: v for task, m in metrics.items() for v in m.values()}
    return figures_by_day


def keys(rows: EncodedDataset) -> NDArray[np.uint64]:
    """What tells rows of the log apart: user, item and time, hashed [rows]."""
    table = rows.read([USER_HASH, ITEM_HASH, TIME])
    columns = [table[name].to_numpy() for name in (USER_HASH, ITEM_HASH, TIME)]
    return np.asarray(combine([column.astype(np.int64).view(np.uint64) for column in columns]))


def days_of(folder: Path) -> dict[date, NDArray[np.uint64]]:
    """The keys of each judged day's rows, by the night before."""
    return {date.fromisoformat(path.stem): np.load(path) for path in sorted(folder.glob("????-??-??.npy"))}


def measure(folder: Path, nights: Sequence[date], seeds: Sequence[int], arms: Sequence[str], ledger: Nights) -> None:
    """Every arm of every night that is not known yet; all seeds of a night use the same features."""
    until = measure_first(folder, seeds, ledger)
    for night in nights:
        if all((arm, seed, night) in ledger for arm in (*arms, SCRATCH) for seed in seeds):
            until = int(ledger[SCRATCH, seeds[0], night]["until"])
            continue
        config = settings(folder / "nights", night, 0)
        build_features(config)
        np.save(folder / f"{night}.npy", keys(EncodedDataset.open(config.features_dir / "valid")))
        for seed in seeds:
            measure_night(folder, night, seed, (until, arms), ledger)
        until = latest(config)
    for seed in seeds:
        if not all((STALE, seed, night) in ledger for night in nights):
            every_day = settings(folder / "first", FIRST, 0, all_later=True)
            build_features(every_day)
            for night, figures in judge_stale(every_day, folder / "first" / f"seed-{seed}").items():
                ledger.add(STALE, seed, night, {**figures, SECONDS: 0.0, ROWS: 0})


def measure_first(folder: Path, seeds: Sequence[int], ledger: Nights) -> int:
    """The first models, where they are not known yet; the time of their last training row."""
    if not all(("first", seed, FIRST) in ledger for seed in seeds):
        config = settings(folder / "nights", FIRST, 0)
        build_features(config)
        until = latest(config)
        for seed in seeds:
            if ("first", seed, FIRST) not in ledger:
                config = settings(folder / "nights", FIRST, seed)
                run = train_once(config, folder / "first" / f"seed-{seed}", None, None)
                ledger.add("first", seed, FIRST, {**run.last, "until": until})
    return int(ledger["first", seeds[0], FIRST].get("until", 0))


def measure_night(folder: Path, night: date, seed: int, warm: tuple[int, Sequence[str]], ledger: Nights) -> None:
    """The arms of one night and seed; each warm one goes on from its own run of the night before.

    `warm`: the time of the last row of the night before, and the warm arms.
    """
    until, arms = warm
    for arm in arms:
        if (arm, seed, night) not in ledger:
            config = settings(folder / "nights", night, seed, *WARM[arm])
            before = folder / "runs" / arm / f"{seed}-{night - timedelta(1)}"
            start = before if night - timedelta(1) > FIRST else folder / "first" / f"seed-{seed}"
            run = train_once(config, folder / "runs" / arm / f"{seed}-{night}", start, until)
            ledger.add(arm, seed, night, run.last)
    if (SCRATCH, seed, night) not in ledger:
        config = settings(folder / "nights", night, seed)
        run = train_once(config, folder / "runs" / SCRATCH / f"{seed}-{night}", None, None)
        ledger.add(HINDSIGHT, seed, night, run.best)
        ledger.add(SCRATCH, seed, night, {**run.last, "until": latest(config)})


def latest(config: ProjectConfig) -> int:
    """The time of the last training row."""
    return int(EncodedDataset.open(config.features_dir / "train").read([TIME])[TIME].to_numpy().max())


def cases(week: Week) -> Iterator[Case]:
    """Each arm's mean over the nights, seed by seed, and its difference to training from nothing."""
    for arm, seeds in week.items():
        for figure in (*TASKS, SECONDS):
            unit = {"watch": "rmse", SECONDS: "CPU s per night"}.get(figure, "auc")
            means = [mean(nights, figure) for nights in seeds]
            yield case_of(f"{arm}: {figure}", means, unit, better="lower" if unit != "auc" else "higher", centre="mean")


def mean(nights: Sequence[Figures], figure: str) -> float:
    """A figure's mean over the nights of one seed."""
    return sum(night[figure] for night in nights) / len(nights)


def table(week: Week) -> str:
    """Arms by tasks in Markdown: means, and the difference to `SCRATCH` over all seeds and nights."""
    rows = [["arm", *TASKS, "CPU s per night", "rows per night"], ["---"] * (len(TASKS) + 3)]
    for arm, seeds in week.items():
        cells = []
        for task in TASKS:
            ours, base = ([[night[task] for night in nights] for nights in week[which]] for which in (arm, SCRATCH))
            cell = f"{sum(map(sum, ours)) / (len(ours) * len(ours[0])):.4f}"
            cells.append(cell if arm == SCRATCH else f"{cell}, {crossed(ours, base)}")
        seconds, passed = (sum(mean(n, figure) for n in seeds) / len(seeds) for figure in (SECONDS, ROWS))
        rows.append([arm, *cells, f"{seconds:.1f}", f"{passed:,.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def by_night(week: Week, nights: Sequence[date], task: str) -> str:
    """A task's figure in Markdown: one row per night, one column per arm, means over the seeds."""
    rows = [["trained to", *week], ["---"] * (len(week) + 1)]
    for number, night in enumerate(nights):
        cells = [f"{sum(seed[number][task] for seed in seeds) / len(seeds):.4f}" for seeds in week.values()]
        rows.append([f"{night:%d %b}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def collect(ledger: Nights, nights: Sequence[date], seeds: Sequence[int], arms: Sequence[str]) -> Week:
    """All figures by arm, seed and night."""
    every = (*arms, SCRATCH, HINDSIGHT, STALE)
    return {arm: [[ledger[arm, seed, night] for night in nights] for seed in seeds] for arm in every}


def lines_of(week: Mapping[str, list[list[Figures]]], task: str) -> dict[str, list[float]]:
    """By arm, the mean over the seeds of each night."""
    return {
        arm: [sum(values) / len(values) for values in zip(*([n[task] for n in s] for s in seeds), strict=True)]
        for arm, seeds in week.items()
    }


def main() -> int:
    """Train and judge all nights, then print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default 3)")
    parser.add_argument("--nights", type=int, default=7, help="how many nights from 27 April (default 7)")
    parser.add_argument("--workspace", type=Path, default=Path("runs") / "week", help="(default runs/week)")
    parser.add_argument("--arms", nargs="+", choices=WARM, default=list(WARM), help="which warm arms (default all)")
    parser.add_argument("--plot", type=Path, help="write the nights as an SVG, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = options.workspace
    folder.mkdir(parents=True, exist_ok=True)
    nights = [FIRST + timedelta(number) for number in range(1, options.nights + 1)]
    seeds = range(options.seeds)
    ledger = Nights(folder / "nights.jsonl")
    measure(folder, nights, seeds, options.arms, ledger)
    week = collect(ledger, nights, seeds, options.arms)
    print(table(week), end="\n\n")
    for task in TASKS:
        print(f"{task}\n\n{by_night(week, nights, task)}", end="\n\n")
    if options.plot:
        drawn = {arm: week[arm] for arm in DRAWN if arm in week}
        lines = {task: lines_of(drawn, task) for task in TASKS}
        write_text(drawing(lines, [f"{night:%d %b}" for night in nights]), options.plot)
    return finish("week", list(cases(week)), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
