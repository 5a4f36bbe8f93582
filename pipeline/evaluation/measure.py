"""Everything that labels and scores say: metrics, baselines, slices, curves, findings; written into one directory."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from contract.machine_cores import usable_cores
from contract.settings import Settings
from pipeline.evaluation.curves import draw
from pipeline.evaluation.findings import calibration_findings, interval_findings
from pipeline.evaluation.influence import TaskInfluence, influences
from pipeline.evaluation.intervals import LEVEL, REPLICATES, Bootstrap, Users
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation, EvaluationMethod, Slice, SliceTest, TaskScores
from pipeline.evaluation.slice_tests import SliceInfluence, tested_slices
from pipeline.evaluation.slices import Masks
from pipeline.evaluation.streaming.overall import Overall, overall
from pipeline.evaluation.streaming.score_pairs import MOST_ROWS
from pipeline.evaluation.streaming.stream_state import MEMORY_ROWS, Budget, StreamState
from pipeline.evaluation.task_metrics import EXACT_ROWS, LISTS_AT, evaluate_tasks

PREDICTIONS_FILE = "predictions.parquet"
_PARALLEL_ROWS = 2_000_000
_MOST_THREADS = 4


class EvaluateConfig(Settings):
    """How metrics and their intervals are computed."""

    replicates: int = Field(default=REPLICATES, ge=50)
    """Bootstrap draws behind each interval."""
    slice_replicates: int = Field(default=200, ge=50)
    """Bootstrap draws behind the intervals of slices."""
    seed: int = 0
    """Of the draws."""
    slice_by: tuple[str, ...] = ()
    """Id features, or `day`, `hour`, `user_activity` and `item_activity`, by which the rows are sliced."""
    threads: int = Field(default=1, ge=1)
    """Threads of one call of the graph."""
    processes: int = Field(default=1, ge=1)
    """Processes that score rows side by side."""
    at: tuple[Annotated[int, Field(ge=1)], ...] = LISTS_AT
    """The lengths k of NDCG@k, recall@k and the other list metrics."""
    lists_by: str = "user"
    """What is ranked together in GAUC, grouped XAUC and the list metrics: ``user``, ``item`` or an id feature."""
    memory_rows: int = Field(default=MEMORY_ROWS, ge=1)
    """More rows than these are judged in one pass: some metrics on all rows, the others on all rows of some users."""
    exact_rows: int = Field(default=MOST_ROWS, ge=1)
    """More rows than these have an AUC between two bounds."""
    trees: bool = True
    """Hold the model against LightGBM on the same columns, where it is installed and training rows are given."""
    importance: int = Field(default=0, ge=0)
    """How often each feature is shuffled to see what it is worth; 0 leaves that out."""

    @property
    def budget(self) -> Budget:
        """What a pass may keep."""
        return Budget(self.memory_rows, self.exact_rows)


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


@dataclass(frozen=True)
class _EvaluatedSlice:
    """A slice, and what is known of its users for a test against the whole."""

    found: Slice
    influence: SliceInfluence


_EvaluatedSlices = Mapping[str, Mapping[str, _EvaluatedSlice]]


def _slices(
    predictions: Predictions,
    masks: Mapping[str, Masks],
    config: EvaluateConfig,
    workers: ThreadPoolExecutor,
    whole: Users,
) -> _EvaluatedSlices:
    jobs = {
        name: {value: workers.submit(_slice, predictions, mask, config, whole) for value, mask in values.items()}
        for name, values in masks.items()
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
    return min(usable_cores(), _MOST_THREADS)


def _slice(
    predictions: Predictions, mask: NDArray[np.bool_], config: EvaluateConfig, whole: Users
) -> _EvaluatedSlice:  # fmt: skip
    """The metrics that these rows define, resampling the users that occur in them; `whole` numbers all users.

    Only the slice's own rows are touched. Its users are told by their numbers, which lie close together.
    """
    numbers, group = numbered(whole.group[mask])
    rows, users = predictions.take(mask), Users(group, numbers.size)
    tasks = rows.by_task(users)
    results = evaluate_tasks(tasks, Bootstrap(users.count, config.slice_replicates, config.seed), config.at)
    evaluated = Slice(rows=rows.rows, tasks=results.scores, undefined=results.undefined)
    return _EvaluatedSlice(evaluated, SliceInfluence(influences(tasks, results.statistics), numbers))


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
