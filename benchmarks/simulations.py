"""How often intervals hold the truth and tests are right, by simulation with a known truth and users that are alike.

``python -m benchmarks.simulations [--draws 1000] [--only coverage|paired|equal|power|slices] [--processes 2]``. Every
draw makes new users with new rows. Coverage: the share of 95 % intervals that hold the metric of a million rows of the
same kind. Equal: how often `compare` names a better model where both are equally good. Power: how often it finds a
planted gain of .005 AUC. Slices: how often a report marks any slice as different from the whole where none is, and one
on which the model is worse. A share of 1,000 draws near 95 % is itself uncertain by 1.4 points.

Draws are counted while they run, and each share is printed as soon as it is known, before the table at the end.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Case, arguments, case_of, finish
from pipeline.console import Progress, progress_of
from pipeline.evaluation.comparing.paired_test import Difference, compare_predictions
from pipeline.evaluation.intervals import Bootstrap, Users
from pipeline.evaluation.measure import Context, EvaluateConfig, measure
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.task_metrics import evaluate_tasks
from pipeline.evaluation.task_rows import TaskRows

Floats = NDArray[np.float64]
Run = Callable[..., Any]
"""Applies a function to each seed, in their order: `map`, or that of a pool of processes."""
TRUTH_ROWS = 1_000_000
_TRUTH_SIZE = 200
"""So many times as large as a draw, at least, is what the truth is taken from: its own error shifts all intervals."""
AT = (3,)
BAND = (0.93, 0.97)
_PLANTED = 0.43
"""The noise of logits at which AUC is .005 above that of .5."""
_WORSE_NOISE = 0.8
_LINES = 10
"""So many lines tell of a simulation's draws where there is no terminal."""
_SLICED = "300 users x 20, 19 slices"


@dataclass(frozen=True)
class World:
    """`users` users with `each` rows who are alike, and a model whose logits have noise and are off by `offset`."""

    users: int
    each: int
    noise: float = 0.5
    offset: float = 0.0

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.users} users x {self.each}, offset {self.offset:g}"

    def draw(self, seed: int, users: int | None = None) -> dict[str, TaskRows]:
        """A binary and a regression task."""
        rng = np.random.default_rng(seed)
        count = users or self.users
        user = np.repeat(np.arange(count), self.each)
        logit = -1.0 + rng.normal(size=user.size) + 0.7 * rng.normal(size=count)[user]
        labels = (rng.random(user.size) < _sigmoid(logit)).astype(np.float32)
        scores = _sigmoid(logit + self.offset + rng.normal(scale=self.noise, size=user.size)).astype(np.float32)
        watch = (logit + rng.normal(size=user.size) + 5.0).astype(np.float32)
        grouped = Users.of(user)
        return {
            "click": TaskRows("click", "binary", labels, scores, grouped),
            "watch": TaskRows("watch", "regression", watch, (logit + 5.0).astype(np.float32), grouped),
        }


WORLDS = (World(200, 10), World(200, 10, offset=0.3), World(1000, 5), World(40, 25), World(20_000, 2))
"""Of the last one groups of users are drawn."""


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def coverage(world: World, draws: int, run: Run = map, replicates: int = 500) -> Iterator[Case]:
    """The share of intervals that hold the truth, for every metric."""
    users = max(TRUTH_ROWS // world.each, _TRUTH_SIZE * world.users)
    scores_by_task = evaluate_tasks(world.draw(10**6, users), Bootstrap(users, 1), AT).scores
    truth = {(task, metric): each.value for task, scores in scores_by_task.items() for metric, each in scores.items()}
    hits: dict[tuple[str, str], list[bool]] = {key: [] for key in truth}
    for ends in run(partial(_intervals, world, replicates), range(draws)):
        for key, (low, high) in ends.items():
            hits[key].append(low <= truth[key] <= high)
    for (task, metric), held in hits.items():
        # Lists of two rows have a recall@3 of 1 in every world: there is nothing to cover.
        if not metric.startswith("recall@") or world.each > int(metric.partition("@")[2]):
            yield _share(f"coverage of {metric} ({task}), {world.name}", held)


def _intervals(world: World, replicates: int, seed: int) -> dict[tuple[str, str], tuple[float, float]]:
    scores_by_task = evaluate_tasks(world.draw(seed), Bootstrap(world.users, replicates, seed), AT).scores
    return {
        (task, metric): (each.low, each.high)
        for task, scores in scores_by_task.items()
        for metric, each in scores.items()
    }


def paired(draws: int, run: Run = map, replicates: int = 500) -> Iterator[Case]:
    """The share of the intervals of differences between two models that hold the true difference."""
    truth = _pair(10**6, 0.5, 0.8, TRUTH_ROWS // 20, 50)
    hits: dict[str, list[bool]] = {}
    for differences in run(partial(_pair, noise_a=0.5, noise_b=0.8, replicates=replicates), range(draws)):
        for metric, each in differences.items():
            hits.setdefault(metric, []).append(each.low <= truth[metric].difference <= each.high)
    for metric, held in hits.items():
        yield _share(f"coverage of the difference in {metric}, 200 users x 20", held)


def _share(name: str, held: list[bool]) -> Case:
    share = float(np.mean(held))
    # One case has one bound: the end of the band that is nearer.
    upper = share > sum(BAND) / 2.0
    return case_of(name, [share], "share", bound=BAND[upper], better="lower" if upper else "higher")


def _pair(
    seed: int, noise_a: float, noise_b: float, users: int = 200, replicates: int = 500
) -> dict[str, Difference]:  # fmt: skip
    """Compare two models on the same rows of one binary task."""
    tasks = _compare(seed, (noise_a, noise_b), users, replicates)
    return tasks["click"]


def _compare(
    seed: int, noise: tuple[float, float], users: int, replicates: int = 500
) -> dict[str, dict[str, Difference]]:  # fmt: skip
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users, dtype=np.uint64), 20)
    logit = rng.normal(size=(user.size, 2)) + 0.7 * rng.normal(size=(users, 2))[user.astype(np.int64)] - 1.0
    labels = (rng.random(logit.shape) < _sigmoid(logit)).astype(np.float32)
    first, second = (
        Predictions(
            {"click": "binary", "like": "binary"}, labels, np.ones(labels.shape, np.float32),
            _sigmoid(logit + rng.normal(scale=each, size=logit.shape)).astype(np.float32),
            user + 1, np.arange(user.size, dtype=np.uint64), np.zeros(user.size, np.int64),
        )
        for each in noise
    )  # fmt: skip
    config = EvaluateConfig(replicates=max(replicates, 50), seed=seed, at=AT)
    return compare_predictions(first, second, config)[0]


def _told_apart(seed: int) -> bool:
    """Whether any of the tests finds a difference between equal models."""
    tasks = _compare(seed, (0.5, 0.5), 200, 200)
    return any(each.better != "neither" for scores in tasks.values() for each in scores.values())


def _gain_found(seed: int) -> bool:
    return _compare(seed, (0.5, _PLANTED), 2000, 100)["click"]["auc"].better == "b"


def equal(draws: int, run: Run = map) -> Iterator[Case]:
    """How often equal models are told apart by any of the tests on two tasks."""
    share = float(np.mean(list(run(_told_apart, range(draws)))))
    most = 0.05 + 2.0 * float(np.sqrt(0.05 * 0.95 / draws))
    yield case_of("equal models told apart by any test of two tasks, 200 users x 20", [share], "share", bound=most)


def power(draws: int, run: Run = map) -> Iterator[Case]:
    """How often a planted gain of .005 AUC is found in the headline."""
    share = float(np.mean(list(run(_gain_found, range(draws)))))
    yield case_of("planted +.005 AUC found, 2,000 users x 20", [share], "share")


def alike_slices(draws: int, run: Run = map) -> Iterator[Case]:
    """How often a report marks any of 19 slices where all are alike."""
    marked, most = list(run(_marked_slices, range(draws))), 0.05 + 2.0 * float(np.sqrt(0.05 * 0.95 / draws))
    share = float(np.mean([bool(each) for each in marked]))
    yield case_of(f"slices that are alike, any marked, {_SLICED}", [share], "share", bound=most)


def worse_slice(draws: int, run: Run = map) -> Iterator[Case]:
    """How often a report marks the one of 19 slices on which the model is worse."""
    marked = list(run(partial(_marked_slices, worse=True), range(draws)))
    share = float(np.mean([("group", "0") in each for each in marked]))
    yield case_of(f"a fifth of the rows with noise .8 instead of .5, marked, {_SLICED}", [share], "share")


def _marked_slices(seed: int, *, worse: bool = False) -> set[tuple[str, str]]:
    """Slices by day and group of rows, and by kind of user; with `worse`, the model is worse on one group."""
    rng = np.random.default_rng(seed)
    users, each = 300, 20
    user = np.repeat(np.arange(users), each)
    day, group, kind = rng.integers(0, 10, user.size), rng.integers(0, 5, user.size), rng.integers(0, 4, users)[user]
    logit = -1.0 + rng.normal(size=user.size) + 0.7 * rng.normal(size=users)[user]
    labels = (rng.random(user.size) < _sigmoid(logit)).astype(np.float32)
    watch = (logit + rng.normal(size=user.size) + 5.0).astype(np.float32)
    noise = np.where((group == 0) & worse, _WORSE_NOISE, 0.5) * rng.normal(size=user.size)
    scores = np.stack((_sigmoid(logit + noise), logit + noise + 5.0), axis=1).astype(np.float32)
    labels = np.stack((labels, watch), axis=1)
    predictions = Predictions(
        {"click": "binary", "watch": "regression"}, labels, np.ones_like(labels), scores, user.astype(np.uint64) + 1,
        np.arange(user.size, dtype=np.uint64), np.zeros(user.size, np.int64),
    )  # fmt: skip
    sides = {"day": day, "group": group, "kind": kind}
    masks = {name: {str(value): of == value for value in np.unique(of)} for name, of in sides.items()}
    with tempfile.TemporaryDirectory() as scratch:
        config = EvaluateConfig(replicates=50, slice_replicates=50, at=AT)
        slices = measure(predictions, Context("simulated", "rows", {}, masks), config, Path(scratch)).slices
    return {
        (name, value)
        for name, parts in slices.items()
        for value, part in parts.items()
        if any(test.differs for metrics in part.tests.values() for test in metrics.values())
    }


SIMULATIONS: dict[str, tuple[Callable[[int, Run], Iterator[Case]], ...]] = {
    "paired": (paired,),
    "equal": (equal,),
    "power": (power,),
    "slices": (alike_slices, worse_slice),
}


def counted(run: Run, progress: Progress, name: str) -> Run:
    """Draws as `run` makes them, which say how many are done: in a terminal always, elsewhere at each tenth of them."""

    def counting(work: Callable[[int], Any], seeds: range) -> Iterator[Any]:
        for done, result in enumerate(run(work, seeds), 1):
            tell = progress if done * _LINES % len(seeds) < _LINES else progress.live
            tell(f"{name}: {done:,} of {len(seeds):,} draws")
            yield result

    return counting


def _chosen(only: str | None, worlds: Sequence[World]) -> Iterator[tuple[str, Callable[[int, Run], Iterator[Case]]]]:
    if only in {None, "coverage"}:
        for world in worlds:
            yield f"coverage, {world.name}", partial(coverage, world)
    for name, simulations in SIMULATIONS.items():
        if only in {None, name}:
            for simulate in simulations:
                yield simulate.__name__.replace("_", " "), simulate


def main() -> int:
    """Run what the command line asks for, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", choices=("coverage", *SIMULATIONS))
    parser.add_argument("--world", type=int, choices=range(len(WORLDS)), help="cover this one alone")
    args = parser.parse_args()
    worlds = WORLDS if args.world is None else [WORLDS[args.world]]
    cases: list[Case] = []
    with ProcessPoolExecutor(args.processes) as pool, progress_of("simulations") as progress:
        run = map if args.processes == 1 else partial(pool.map, chunksize=5)
        for name, simulate in _chosen(args.only, worlds):
            progress(name)
            for case in simulate(args.draws, counted(run, progress, name)):
                progress.say(f"{case.case}: {case.value:.4g}")
                cases.append(case)
    return finish("simulations", cases, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
