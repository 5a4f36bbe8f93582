"""What a pass over more rows than fit in memory says of all of them, beside what a share of the users says."""

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.intervals import Bootstrap, SumStatistic, interval_of
from pipeline.evaluation.predictions import Kind
from pipeline.evaluation.row_sums import ROW_SUMS
from pipeline.evaluation.streaming.score_pairs import Bounds
from pipeline.evaluation.streaming.stream_state import StreamState, TaskState
from pipeline.evaluation.task_metrics import Estimate, Scores


@dataclass(frozen=True)
class Overall:
    """By task the estimates over all rows, and notes for the reader on what they and the others were computed on."""

    rows: int
    scores: dict[str, Scores]
    notes: tuple[str, ...]


def overall(state: StreamState, sampled: dict[str, Scores], kinds: dict[str, Kind], bootstrap: Bootstrap) -> Overall:
    """Metrics of sums over all rows, and AUC between certain bounds.

    Args:
        state: A pass whose rows did not all fit.
        sampled: The estimates on the users that were kept; their intervals say how wide AUC's is.
        kinds: Of the tasks.
        bootstrap: Draws and seed; it draws the state's units.
    """
    share = 0.5**state.users.halvings
    kept = (
        f"{state.seen:,} rows are more than the {state.budget.rows:,} that are kept in memory: "
        f"metrics of sums and AUC are of all rows; the others, slices and curves of all rows of {share:.4g} of the "
        f"users ({state.users.rows:,} rows), chosen by the hash of their id"
    )
    notes = [kept]
    scores: dict[str, Scores] = {}
    for name, task in state.tasks.items():
        scores[name] = _sums(task, kinds[name], bootstrap)
        if kinds[name] == "regression":
            continue
        if "auc" in sampled[name] and task.weighted:
            notes.append(f"{name}: the rows have weights, so AUC too is of the users that were kept")
        elif "auc" in sampled[name]:
            bounds = task.pairs.finish()
            scores[name]["auc"] = _auc(bounds, sampled[name]["auc"], task, float(np.sqrt(share)))
            if bounds.low < bounds.high:
                notes.append(
                    f"{name}: AUC of all rows lies for certain between {bounds.low:.7f} and {bounds.high:.7f}; more "
                    f"than {state.budget.exact_rows:,} rows are counted in fine bins of the score"
                )
    return Overall(state.seen, scores, tuple(notes))


def _sums(task: TaskState, kind: Kind, bootstrap: Bootstrap) -> Scores:
    sums, of = task.sums[kind], ROW_SUMS[kind]
    statistic = SumStatistic(of.names, sums.sums, of.finish)
    units = sums.keys.size
    (draws,) = Bootstrap(units, bootstrap.replicates, bootstrap.seed).run([statistic])
    scores: Scores = {}
    for name, value, values in zip(of.names, statistic(np.ones(units)), draws.T, strict=True):
        if np.isfinite(value):
            scores[name] = _estimate(task, kind, float(value), *interval_of(name, float(value), values, units))
    return scores


def _auc(bounds: Bounds, sampled: Estimate, task: TaskState, narrower: float) -> Estimate:
    """All users' interval is that of the kept ones, narrower as there are more; the bounds widen it again."""
    low = bounds.low - (sampled.value - sampled.low) * narrower
    high = bounds.high + (sampled.high - sampled.value) * narrower
    return _estimate(task, "binary", bounds.value, low, high)


def _estimate(task: TaskState, kind: Kind, value: float, low: float, high: float) -> Estimate:
    positives = task.positives if kind == "binary" else None
    return Estimate(value=value, low=low, high=high, n=task.rows, positives=positives)
