"""Evaluation: how fast metrics are at many rows, and by simulation how often intervals and tests are right.

``python -m benchmarks.evaluation [--rows 10000000] [--draws 1000] [--only speed|simulation]``. Speeds are ratios of CPU
time of this process, rounds interleaved, so that a busy machine changes both sides alike. The simulation draws rows of
users that are alike, with a known truth: coverage of the 95 % intervals, how often equal models are told apart, and how
often a planted gain of .005 AUC is found.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from benchmarks.report import Case, arguments, case_of, finish
from pipeline.evaluation import metrics
from pipeline.evaluation.compare import compare_predictions
from pipeline.evaluation.intervals import Bootstrap, Users
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.task_metrics import evaluate_tasks
from pipeline.evaluation.task_rows import TaskRows

Floats = NDArray[np.float64]
_TRUTH_ROWS = 2_000_000
_WITHIN = (0.93, 0.97)


@dataclass(frozen=True)
class World:
    """Rows of users who are alike: `users` users with `each` rows, and the noise of the model's logits."""

    users: int
    each: int
    noise: float = 0.5
    offset: float = 0.0

    def draw(self, seed: int) -> tuple[TaskRows, TaskRows]:
        """A binary and a regression task."""
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(self.users), self.each)
        logit = -1.0 + rng.normal(size=user.size) + 0.7 * rng.normal(size=self.users)[user]
        labels = (rng.random(user.size) < _sigmoid(logit)).astype(np.float32)
        scores = _sigmoid(logit + self.offset + rng.normal(scale=self.noise, size=user.size)).astype(np.float32)
        watch = (logit + rng.normal(size=user.size)).astype(np.float32)
        users = Users.of(user)
        return (
            TaskRows("click", "binary", labels, scores, users),
            TaskRows("watch", "regression", watch + 5, (logit + 5).astype(np.float32), users),
        )


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def coverage(world: World, draws: int) -> list[Case]:
    """The share of intervals that hold the truth, which is the metric of two million rows."""
    large = World(_TRUTH_ROWS // world.each, world.each, world.noise, world.offset).draw(10**6)
    tasks = {rows.name: rows for rows in large}
    truth = evaluate_tasks(tasks, Bootstrap(large[0].users.count, 1)).scores
    hits: dict[tuple[str, str], list[bool]] = {}
    for seed in range(draws):
        rows = {task.name: task for task in world.draw(seed)}
        for task, scores in evaluate_tasks(rows, Bootstrap(world.users, 200, seed)).scores.items():
            for metric, found in scores.items():
                value = truth[task][metric].value
                hits.setdefault((task, metric), []).append(found.low <= value <= found.high)
    name = f"{world.users} users x {world.each}, offset {world.offset}"
    return [
        case_of(f"coverage of {metric} ({task}), {name}", [float(np.mean(found))], "share", bound=_WITHIN[0],
                better="higher")
        for (task, metric), found in hits.items()
    ]  # fmt: skip


def comparisons(draws: int) -> list[Case]:
    """Equal models told apart at all, and a planted gain of .005 AUC found in the headline."""
    wrong = [_compare(seed, 0.5, 0.5) for seed in range(draws)]
    right = [_compare(seed, 0.5, _PLANTED, users=2000)[1] for seed in range(draws // 4)]
    return [
        case_of("equal models told apart by any of 2 x 13 tests", [float(np.mean([any_ for any_, _ in wrong]))],
                "share", bound=0.05 + 2.0 * float(np.sqrt(0.05 * 0.95 / draws))),
        case_of("planted +.005 AUC found on 40,000 rows of 2,000 users", [float(np.mean(right))], "share"),
    ]  # fmt: skip


_PLANTED = 0.43
"""The noise of logits at which AUC is .005 above that of .5."""


def _compare(seed: int, noise_a: float, noise_b: float, users: int = 200) -> tuple[bool, bool]:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users, dtype=np.uint64), 20)
    logit = rng.normal(size=(user.size, 2)) + 0.7 * rng.normal(size=(users, 2))[user.astype(np.int64)] - 1.0
    labels = (rng.random(logit.shape) < _sigmoid(logit)).astype(np.float32)
    both = [
        Predictions(
            {"click": "binary", "like": "binary"}, labels, np.ones(labels.shape, np.float32),
            _sigmoid(logit + rng.normal(scale=noise, size=logit.shape)).astype(np.float32),
            user, np.arange(user.size, dtype=np.uint64), np.zeros(user.size, np.int64),
        )
        for noise in (noise_a, noise_b)
    ]  # fmt: skip
    tasks, _ = compare_predictions(both[0], both[1], EvaluateConfig(replicates=100))
    found = [difference.better for scores in tasks.values() for difference in scores.values()]
    return any(better != "neither" for better in found), tasks["click"]["auc"].better == "b"


def speed(rows: int, rounds: int) -> list[Case]:
    """Ratios of CPU time against scikit-learn."""
    rng = np.random.default_rng(0)
    scores = _sigmoid(rng.normal(size=rows)).astype(np.float32)
    labels = (rng.random(rows) < scores).astype(np.float32)
    users = Users.of(rng.integers(0, max(rows * 26 // 1000, 2), rows))
    task = TaskRows("click", "binary", labels, scores, users)

    def theirs() -> None:
        roc_auc_score(labels, scores)
        log_loss(labels, scores)
        average_precision_score(labels, scores)

    area, ours, all_ours, all_theirs = [], [], [], []
    for _ in range(rounds):
        area.append(_seconds(lambda: roc_auc_score(labels, scores)))
        ours.append(_seconds(lambda: metrics.auc(labels, scores)))
        all_theirs.append(_seconds(theirs))
        all_ours.append(_seconds(lambda: evaluate_tasks({"click": task}, Bootstrap(users.count))))
    off = abs(roc_auc_score(labels, scores) - metrics.auc(labels, scores))
    name = f"{rows:,} rows"
    return [
        case_of(f"exact AUC, {name}: scikit-learn / ours", _ratios(area, ours), "x", bound=10.0, better="higher"),
        case_of(f"exact AUC, {name}: off scikit-learn's", [off], "AUC", bound=1e-12),
        case_of(
            f"all binary metrics with user-clustered intervals, {name}, {users.count:,} users: sum of three of "
            "scikit-learn's / ours", _ratios(all_theirs, all_ours), "x", bound=1.0, better="higher",
        ),
    ]  # fmt: skip


def _ratios(one: list[float], other: list[float]) -> list[float]:
    return [a / b for a, b in zip(one, other, strict=True)]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> int:
    """Run what the command line asks for, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", choices=("speed", "simulation"))
    args = parser.parse_args()
    cases: list[Case] = []
    if args.only != "speed":
        for world in (World(200, 10), World(200, 10, offset=0.3), World(1000, 5)):
            cases += coverage(world, args.draws)
        cases += comparisons(args.draws)
    if args.only != "simulation":
        cases += speed(args.rows, args.rounds)
    return finish("evaluation", cases, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
