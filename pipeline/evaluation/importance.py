"""Feature importance by permutation on the served graph: how much worse a metric gets when a feature says nothing.

A feature's values are shuffled among the rows, so that it keeps its distribution and loses what it tells of its row
(Breiman 2001, "Random Forests", section 10). Features that tell nearly the same hide each other's importance, so those
of the same lists, vectors and pairs are also shuffled together, as one group.

Shape legend: N rows, U users, T tasks, P permutations.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from contract.errors import DataError
from contract.files import write_text
from contract.inputs import Batch, Inputs
from contract.schema import Schema
from contract.settings import Settings, renamed
from features.batches import BatchReader
from pipeline.evaluation.feature_groups import feature_groups
from pipeline.evaluation.intervals import Bootstrap, Users, interval
from pipeline.evaluation.linearised_auc import auc_shares
from pipeline.evaluation.ranking import Floats, Ranking
from pipeline.evaluation.shuffled_inputs import shuffled, slice_of
from pipeline.evaluation.task_rows import HEADLINE
from serving.graph.engine import Engine

IMPORTANCE_FILE = "importance.json"
MOST_ROWS = 30_000
PERMUTATIONS = 5
_REPLICATES = 200
_CHUNK = 4096
Answers = Mapping[str, NDArray[np.float32]]


class Loss(Settings):
    """How much worse a task's metric became: the mean over the permutations, with a 95 % interval over users."""

    value: float
    low: float
    high: float


class FeatureLoss(Settings):
    """A feature, or a group of `features` that were shuffled together, and what the tasks lost without it."""

    name: str
    features: tuple[str, ...]
    tasks: dict[str, Loss]


class Importance(Settings):
    """``importance.json``: all features and groups.

    `metrics` are the tasks' headline metrics, and `baseline_score` their values before anything is shuffled.
    """

    rows: int
    permutations: int
    metrics: dict[str, str]
    baseline_score: dict[str, float]
    features: tuple[FeatureLoss, ...]

    @model_validator(mode="before")
    @classmethod
    def _names_of_old(cls, data: Any) -> Any:
        return renamed(data, {"whole": "baseline_score"})

    def save(self, directory: Path) -> None:
        """Write ``importance.json``."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / IMPORTANCE_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where importance was not asked for.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / IMPORTANCE_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"{directory / IMPORTANCE_FILE} cannot be read: {error}; evaluate again with --importance"
            raise DataError(message) from error

    def most(self, task: str, count: int) -> list[FeatureLoss]:
        """What a task loses most without, the greatest first."""
        known = [each for each in self.features if task in each.tasks]
        return sorted(known, key=lambda each: -each.tasks[task].value)[:count]


def importance(
    engine: Engine,
    data: Path,
    schema: Schema,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Importance:
    """Shuffle each feature and each group of features, and score the rows again.

    Args:
        engine: The served graph.
        data: Encoded rows, of which the first `MOST_ROWS` in the order of reading are used; they are of all days.
        schema: Of both.
        permutations: How often each feature is shuffled.
        seed: Of the shuffles and of the draws of users.
        progress: Called with the features done and the features in all.

    Raises:
        DataError: there are no rows, or no task of which they define AUC or RMSE.
        PredictionError: the graph fails.
    """
    batch = next(BatchReader(data, schema, MOST_ROWS).epoch(), None)
    if batch is None:
        message = f"{data} has no rows to measure importance on; at least one is needed"
        raise DataError(message)
    rows = _Judge.of(batch, schema)
    if not rows.tasks:
        message = f"{data}: no task has rows of both classes, or a label at all, so nothing can be lost"
        raise DataError(message)
    groups = feature_groups(schema)
    whole = rows.sums(_score(engine, batch.inputs))
    orders = [np.random.default_rng([seed, number]).permutation(batch.rows) for number in range(permutations)]
    bootstrap = Bootstrap(rows.users.count, _REPLICATES, seed)
    losses = []
    for done, (name, features) in enumerate(groups.items()):
        changed = [rows.sums(_score(engine, shuffled(batch.inputs, schema, features, order))) for order in orders]
        tasks = {task: rows.loss(task, whole[task], [each[task] for each in changed], bootstrap) for task in rows.tasks}
        losses.append(FeatureLoss(name=name, features=features, tasks=tasks))
        if progress is not None:
            progress(done + 1, len(groups))
    ones = np.ones(rows.users.count)
    return Importance(
        rows=batch.rows,
        permutations=permutations,
        metrics={task: HEADLINE[kind] for task, kind in rows.tasks.items()},
        baseline_score={task: rows.metric(task, whole[task], ones) for task in rows.tasks},
        features=tuple(losses),
    )


def _score(engine: Engine, inputs: Inputs) -> Answers:
    """The graph's answers for all rows, a few thousand at a time."""
    parts = [engine.predict(each) for each in _chunks(inputs)]
    return {task: np.concatenate([part[task] for part in parts]) for task in parts[0]}


def _chunks(inputs: Inputs) -> Iterator[Inputs]:
    for begin in range(0, inputs.candidate.rows, _CHUNK):
        end = min(begin + _CHUNK, inputs.candidate.rows)
        yield Inputs(slice_of(inputs.request, begin, end), slice_of(inputs.candidate, begin, end))


@dataclass(frozen=True)
class _Judge:
    """Labels of the rows, and sums by user from which AUC and RMSE of any draw of users follow."""

    tasks: dict[str, str]
    labels: Mapping[str, NDArray[np.float32]]
    applies: Mapping[str, NDArray[np.bool_]]
    users: Users

    @classmethod
    def of(cls, batch: Batch, schema: Schema) -> Self:
        """Tasks whose rows define their headline metric."""
        users = Users.of_hashes(batch.user) if schema.user_key else Users.apart(batch.rows)
        tasks: dict[str, str] = {}
        labels, applies = {}, {}
        for place, task in enumerate(schema.tasks):
            mask = batch.weights[:, place] > 0
            mine = batch.labels[mask, place]
            if mine.size and (task.kind == "regression" or 0 < np.count_nonzero(mine) < mine.size):
                tasks[task.name], labels[task.name], applies[task.name] = task.kind, mine, mask
        return cls(tasks, labels, applies, users)

    def sums(self, answers: Answers) -> dict[str, Floats]:
        """By task, for each user: rightly ordered pairs and all, or squared errors and rows: [U, 2]."""
        sums = {}
        for task, kind in self.tasks.items():
            mask, labels = self.applies[task], self.labels[task]
            scores, users = answers[task][mask], self.users.take(mask)
            if kind == "binary":
                ranking = Ranking.of(labels, scores)
                right = np.empty(labels.size)
                right[ranking.order] = auc_shares(ranking, None)
                positives = np.count_nonzero(labels == 1)
                sums[task] = users.sums(right, np.where(labels == 1, labels.size - positives, positives))
            else:
                sums[task] = users.sums(np.square(scores.astype(np.float64) - labels), np.ones(labels.size))
        return sums

    def metric(self, task: str, sums: Floats, counts: Floats) -> float:
        """AUC, to first order in the counts [U] of a draw, or RMSE."""
        if self.tasks[task] == "binary":
            right, pairs = (2.0 * counts - 1.0) @ sums
            return float(right / pairs) if pairs > 0 else float("nan")
        squares, rows = counts @ sums
        return float(np.sqrt(squares / rows)) if rows > 0 else float("nan")

    def loss(self, task: str, whole: Floats, changed: list[Floats], bootstrap: Bootstrap) -> Loss:
        """How much worse the metric became, the mean over the permutations, on all rows and on draws of users."""

        def lost(counts: Floats) -> float:
            before = self.metric(task, whole, counts)
            after = float(np.mean([self.metric(task, each, counts) for each in changed]))
            return before - after if self.tasks[task] == "binary" else after - before

        low, high = interval(np.array([lost(counts) for counts in bootstrap.draws()]))
        return Loss(value=lost(np.ones(bootstrap.users)), low=low, high=high)
