"""How fast evaluation is at many rows, each figure beside its rival, rounds interleaved.

``python -m benchmarks.evaluation [--rows 10000000] [--events 2000000] [--score-rows 3000000]
[--rounds 3] [--only metrics|scoring|stream]``:

- metrics: exact AUC, all binary metrics with user-clustered intervals, and GAUC, against scikit-learn and polars;
- scoring: a bundle over Parquet against bare onnxruntime on ready arrays, in one process and two, and raw days to a
  report against the feature build of those days and the scoring;
- stream: ``moerank evaluate --predictions`` of `--rows` rows and of ten times as many, with its peak memory.

Ratios are of wall-clock time, with that of CPU time beside the first; a busy machine makes both sides alike slow, but
threads and processes help only on a quiet one. How often intervals and tests are right: `benchmarks.simulations`.
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation_scoring import scoring
from benchmarks.evaluation_stream import stream
from benchmarks.report import Case, NotInstalled, arguments, case_of, finish
from pipeline.console import say
from pipeline.evaluation import metrics
from pipeline.evaluation.intervals import Bootstrap, Users
from pipeline.evaluation.task_metrics import evaluate_tasks
from pipeline.evaluation.task_rows import TaskRows

USERS_A_ROW = 0.026


class Timed(NamedTuple):
    """Seconds of one run, on the clock and of this process's CPU."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Timed:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Timed(time.perf_counter() - wall, time.process_time() - cpu)


class Clicks(NamedTuple):
    """Labels, calibrated scores and users of many rows."""

    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    user: NDArray[np.int64]

    @classmethod
    def draw(cls, rows: int) -> "Clicks":
        """Half the rows positive, 38 rows per user."""
        rng = np.random.default_rng(0)
        scores = (1.0 / (1.0 + np.exp(-rng.normal(size=rows)))).astype(np.float32)
        labels = (rng.random(rows) < scores).astype(np.float32)
        return cls(labels, scores, rng.integers(0, max(int(rows * USERS_A_ROW), 2), rows))

    def theirs(self) -> None:
        """Three metrics without any interval."""
        from sklearn.metrics import average_precision_score, log_loss, roc_auc_score  # noqa: PLC0415 - as below

        roc_auc_score(self.labels, self.scores)
        log_loss(self.labels, self.scores)
        average_precision_score(self.labels, self.scores)

    def ours(self) -> None:
        """All metrics with intervals, users numbered first."""
        users = Users.of(self.user)
        rows = TaskRows("click", "binary", self.labels, self.scores, users)
        evaluate_tasks({"click": rows}, Bootstrap(users.count))


def metric_cases(rows: int, rounds: int) -> list[Case | NotInstalled]:
    """Against scikit-learn and polars."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - processes that score import this program again

    clicks = Clicks.draw(rows)
    labels, scores = clicks.labels, clicks.scores
    area, our_area, three, all_ours = [], [], [], []
    for number in range(rounds):
        say(f"metrics of {rows:,} rows: round {number + 1} of {rounds}")
        area.append(timed(lambda: roc_auc_score(labels, scores)))
        our_area.append(timed(lambda: metrics.auc(labels, scores)))
        three.append(timed(clicks.theirs))
        all_ours.append(timed(clicks.ours))
    off = abs(roc_auc_score(labels, scores) - metrics.auc(labels, scores))
    name, users = f"{rows:,} rows", f"{np.unique(clicks.user).size:,} users"
    everything = f"all binary metrics with user-clustered intervals, {name}, {users}: three of scikit-learn's / ours"
    return [
        _ratio(f"exact AUC, {name}: scikit-learn / ours", area, our_area, 10.0),
        _cpu_ratio(f"exact AUC, {name}: scikit-learn / ours, CPU time", area, our_area),
        case_of(f"exact AUC, {name}: off scikit-learn's", [off], "AUC", bound=1e-12),
        _ratio(everything, three, all_ours, 1.0),
        _cpu_ratio(f"{everything}, CPU time", three, all_ours),
        *_gauc(clicks, rounds),
    ]


def _gauc(clicks: Clicks, rounds: int) -> list[Case | NotInstalled]:
    name = f"GAUC, {clicks.labels.size:,} rows: plain polars / ours"
    if find_spec("polars") is None:
        return [NotInstalled(name, "polars")]
    import polars as pl  # noqa: PLC0415 - a rival that need not be there

    frame = pl.DataFrame({"user": clicks.user, "label": clicks.labels, "score": clicks.scores})

    def theirs() -> float:
        ranked = frame.with_columns(pl.col("score").rank("average").over("user").alias("rank"))
        by_user = ranked.group_by("user").agg(
            pl.len().alias("n"), pl.col("label").sum().alias("p"), (pl.col("rank") * pl.col("label")).sum().alias("r")
        )
        mixed = by_user.filter((pl.col("p") > 0) & (pl.col("p") < pl.col("n")))
        areas = (pl.col("r") - pl.col("p") * (pl.col("p") + 1) / 2) / (pl.col("p") * (pl.col("n") - pl.col("p")))
        return float(mixed.select((areas * pl.col("n")).sum() / pl.col("n").sum()).item())

    their_times, our_times = [], []
    for _ in range(rounds):
        their_times.append(timed(theirs))
        our_times.append(timed(lambda: metrics.gauc(clicks.labels, clicks.scores, clicks.user)))
    off = abs(theirs() - metrics.gauc(clicks.labels, clicks.scores, clicks.user))
    return [
        _ratio(name, their_times, our_times, 0.8),
        _cpu_ratio(f"{name}, CPU time", their_times, our_times),
        case_of("GAUC: off polars'", [off], "GAUC", bound=1e-6),
    ]


def _ratio(name: str, rival: list[Timed], ours: list[Timed], bound: float) -> Case:
    ratios = [a.wall / b.wall for a, b in zip(rival, ours, strict=True)]
    return case_of(name, ratios, "x", bound=bound, better="higher")


def _cpu_ratio(name: str, rival: list[Timed], ours: list[Timed]) -> Case:
    return case_of(name, [a.cpu / b.cpu for a, b in zip(rival, ours, strict=True)], "x", better="higher")


def main() -> int:
    """Run what the command line asks for, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--score-rows", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("metrics", "scoring", "stream"))
    args = parser.parse_args()
    cases: list[Case | NotInstalled] = []
    if args.only in {None, "metrics"}:
        cases += metric_cases(args.rows, args.rounds)
    if args.only in {None, "scoring"}:
        cases += scoring(args.events, args.score_rows, args.rounds)
    if args.only in {None, "stream"}:
        cases += stream(args.rows, max(args.rounds // 2, 1))
    return finish("evaluation", cases, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
