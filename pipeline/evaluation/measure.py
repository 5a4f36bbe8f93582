"""Everything that labels and scores say: metrics, baselines, slices, curves, findings; written into one directory."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pipeline.evaluation.curves import draw
from pipeline.evaluation.evaluate_config import EvaluateConfig
from pipeline.evaluation.evaluated_slices import EvaluatedSlice, evaluated_slice
from pipeline.evaluation.findings import calibration_findings, interval_findings
from pipeline.evaluation.influence import TaskInfluence, influences
from pipeline.evaluation.intervals import LEVEL, Bootstrap, Users
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation, EvaluationMethod, Slice, SliceTest, TaskScores
from pipeline.evaluation.slice_tests import tested_slices
from pipeline.evaluation.slices import Masks
from pipeline.evaluation.streaming.overall import Overall, overall
from pipeline.evaluation.streaming.stream_state import StreamState
from pipeline.evaluation.task_metrics import EXACT_ROWS, evaluate_tasks

__all__ = ["PREDICTIONS_FILE", "Baseline", "Context", "EvaluateConfig", "evaluated_baselines", "measure"]

PREDICTIONS_FILE = "predictions.parquet"
_PARALLEL_ROWS = 2_000_000
_MOST_THREADS = 4
Baseline = NDArray[np.float32] | TaskScores
"""Scores [N, T], or the metrics of scores on all rows."""


@dataclass(frozen=True)
class Context:
    """What is known beside the rows.

    Names of model and data, baselines (scores [N, T], or their metrics on all rows), slices, experts, notes, and
    by task the units of labels and how boosted trees read ids.
    """

    model: str
    data: str
    baselines: Mapping[str, Baseline]
    masks: Mapping[str, Masks] = field(default_factory=dict)
    experts: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    tree_ids: Mapping[str, str] = field(default_factory=dict)


def measure(
    predictions: Predictions, context: Context, config: EvaluateConfig, out_dir: Path, state: StreamState | None = None
) -> Evaluation:
    """Compute and write ``evaluation.json`` and ``curves.json``.

    Args:
        predictions: The rows, or those of some users where `state` has seen more.
        context: What is known beside the rows.
        config: How to evaluate.
        out_dir: Gets the files; made if absent.
        state: The pass over all rows, where they do not fit in memory.

    Raises:
        DataError: values that no metric can use.
    """
    users = predictions.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    tasks = predictions.by_task(users)

    def of_baseline(baseline: Baseline) -> TaskScores:
        return baseline if isinstance(baseline, dict) else _of_scores(predictions, baseline, users, bootstrap, config)

    # NumPy computes without the interpreter's lock; of very many rows one group of metrics at a time is in memory.
    with ThreadPoolExecutor(_cores() if predictions.rows <= _PARALLEL_ROWS else 1) as workers:
        mine = workers.submit(evaluate_tasks, tasks, bootstrap, config.at)
        others = {name: workers.submit(of_baseline, baseline) for name, baseline in context.baselines.items()}
        curves = workers.submit(draw, tasks)
        slices = _slices(predictions, context.masks, config, workers, users)
        results, baselines = mine.result(), {name: job.result() for name, job in others.items()}
    whole = Overall(predictions.rows, {}, ())
    if state is not None and not state.is_whole:
        whole = overall(state, results.scores, predictions.tasks, bootstrap)
    scores = {name: metrics | whole.scores.get(name, {}) for name, metrics in results.scores.items()}
    told_apart = {name: metrics for name, metrics in scores.items() if not tasks[name].is_of_one}
    result = Evaluation(
        model=context.model,
        data=context.data,
        rows=whole.rows,
        tasks=scores,
        undefined=results.undefined,
        findings=(*context.notes, *whole.notes, *interval_findings(tasks), *calibration_findings(told_apart)),
        baselines=baselines,
        slices=_with_tests(slices, influences(tasks, results.statistics)),
        experts=dict(context.experts),
        units=dict(context.units),
        tree_ids=dict(context.tree_ids),
        method=_method(config, grouped=predictions.grouped),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    curves.result().save(out_dir)
    result.save(out_dir)
    return result


def evaluated_baselines(
    rows: Predictions, baselines: Mapping[str, NDArray[np.float32]], config: EvaluateConfig
) -> dict[str, TaskScores]:
    """What `measure` would find of baselines on all `rows`; their own scores are not looked at."""
    users = rows.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    return {name: _of_scores(rows, scores, users, bootstrap, config) for name, scores in baselines.items()}


def _of_scores(
    rows: Predictions, scores: NDArray[np.float32], users: Users, bootstrap: Bootstrap, config: EvaluateConfig
) -> TaskScores:
    return evaluate_tasks(rows.with_scores(scores).by_task(users), bootstrap, config.at).scores


_EvaluatedSlices = Mapping[str, Mapping[str, EvaluatedSlice]]


def _slices(
    predictions: Predictions,
    masks: Mapping[str, Masks],
    config: EvaluateConfig,
    workers: ThreadPoolExecutor,
    whole: Users,
) -> _EvaluatedSlices:
    jobs = {
        name: {value: workers.submit(evaluated_slice, predictions, mask, config, whole) for value, mask in each.items()}
        for name, each in masks.items()
    }
    return {name: {value: job.result() for value, job in values.items()} for name, values in jobs.items()}


def _with_tests(slices: _EvaluatedSlices, whole: Mapping[str, TaskInfluence]) -> dict[str, dict[str, Slice]]:
    """The slices with the tests that hold for all of them together."""
    parts = {name: {value: each.influence for value, each in values.items()} for name, values in slices.items()}
    tests: dict[tuple[str, str], dict[str, dict[str, SliceTest]]] = {}
    for each in tested_slices(parts, whole):
        of_task = tests.setdefault((each.slice, each.value), {}).setdefault(each.task, {})
        of_task[each.metric] = SliceTest(difference=each.difference, p_adjusted=each.p)
    return {
        name: {
            value: each.found.model_copy(update={"tests": tests.get((name, value), {})})
            for value, each in values.items()
        }
        for name, values in slices.items()
    }


def _cores() -> int:
    """Cores that this process may use, as far as more of them help."""
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


def _method(config: EvaluateConfig, *, grouped: bool) -> EvaluationMethod:
    unit = "users with all their rows" if grouped else "rows (the data have no users)"
    return EvaluationMethod(
        interval=f"bootstrap drawing {unit}, the same draws for all tasks, metrics and baselines; Student's t from "
        "their standard deviation, on a logarithmic or logit scale; XAUC, lift, and "
        f"above {EXACT_ROWS} rows AUC and PR AUC, to first order in the draw's weights; ECE without the bias of its "
        "plain form, by the sizes of error that agree with the observed one; each slice's interval holds by itself, "
        "while what is said to differ from the whole is adjusted for all slices together (Holm)",
        level=LEVEL,
        replicates=config.replicates,
        seed=config.seed,
    )
