"""What the server has done since it started, by model and version.

Shape legend: N candidate rows, A experts of all levels.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.errors import MoerankError
from contract.schema import TaskSpec
from serving.graph.answer import ExpertUse, RankAnswer
from serving.graph.context import PHASES, Clock, Phase
from serving.graph.served_model import RankingModel

SAMPLE = 16
"""Predictions of one answer in so many enter the distributions: their shape is what is watched, and it costs."""
PROBABILITIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper edges of the latency histograms."""
SPREADS = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)


@dataclass
class ValueDistribution:
    """A histogram: `counts` int64 of values up to each of `edges`, and of those beyond; `total` is their sum."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    total: float = 0.0

    @classmethod
    def of(cls, task: TaskSpec) -> "ValueDistribution":
        """An empty one whose edges suit a task: probabilities, or standard deviations around the training mean."""
        spread = task.spread or 1.0
        edges = PROBABILITIES if task.kind == "binary" else [task.base_rate + spread * step for step in SPREADS]
        return cls(np.array(edges), np.zeros(len(edges) + 1, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values [N]."""
        self.counts += np.bincount(np.searchsorted(self.edges, values), minlength=len(self.counts))
        self.total += float(values.sum(dtype=np.float64))


@dataclass
class Latencies:
    """A histogram of times: how many up to each of `SECONDS`, and beyond; and the sum in nanoseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total_ns: int = 0
    exemplars: "dict[int, TracedTime]" = field(default_factory=dict)
    """The last traced call of each bucket."""

    def add(self, nanoseconds: int, trace: str = "") -> None:
        """Count one, of a call that belongs to `trace` if it is traced."""
        bucket = bisect_left(SECONDS, nanoseconds * 1e-9)
        self.counts[bucket] += 1
        self.total_ns += nanoseconds
        if trace:
            self.exemplars[bucket] = TracedTime(trace, nanoseconds * 1e-9, time.time())

    def copy(self) -> "Latencies":
        """A copy that does not change any more."""
        return Latencies(list(self.counts), self.total_ns, dict(self.exemplars))


class TracedTime(NamedTuple):
    """How long one call took, and when it ended, in seconds since 1970."""

    trace: str
    seconds: float
    at: float


def no_latencies() -> dict[str, Latencies]:
    """One histogram per phase, and one over all phases."""
    return {phase: Latencies() for phase in (*PHASES, "total")}


@dataclass
class Load:
    """Of `rows` candidates, those that each expert was used for, int64 [A]; and the level of each expert [A]."""

    levels: tuple[int, ...]
    rows_A: NDArray[np.int64]
    rows: int = 0

    def add(self, use: ExpertUse) -> None:
        """Count an answer."""
        used_NA = use.used()
        self.rows_A += used_NA.sum(axis=0)
        self.rows += len(used_NA)


@dataclass
class ModelWork:
    """What one version of a model has done. Times are nanoseconds."""

    model: str
    version: int
    distributions: dict[str, ValueDistribution]
    successes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    success_ns: int = 0
    failure_ns: int = 0
    phase_ns: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    latencies: dict[str, Latencies] = field(default_factory=no_latencies)
    """Of answered requests, by phase and in all."""
    rows: int = 0
    executions: int = 0
    unknown_users: int = 0
    unknown_items: int = 0
    missing_context: Counter[str] = field(default_factory=Counter)
    """Rankings whose request left out a feature of the context, by feature."""
    unseen_context: Counter[str] = field(default_factory=Counter)
    """Rankings whose context had an id that training never saw, by feature."""
    stages: Counter[str] = field(default_factory=Counter)
    """Rankings that less than the whole model answered, by stage."""
    clipped: Counter[str] = field(default_factory=Counter)
    """Given numbers beyond what training saw, by feature."""
    experts: "Load | None" = None
    last_ms: int = 0

    def copy(self) -> "ModelWork":
        """A copy that does not change any more."""
        distributions = {task: replace(d, counts=d.counts.copy()) for task, d in self.distributions.items()}
        return replace(
            self,
            distributions=distributions,
            failures=Counter(self.failures),
            missing_context=Counter(self.missing_context),
            unseen_context=Counter(self.unseen_context),
            clipped=Counter(self.clipped),
            stages=Counter(self.stages),
            phase_ns=dict(self.phase_ns),
            latencies={phase: each.copy() for phase, each in self.latencies.items()},
            experts=None if self.experts is None else replace(self.experts, rows_A=self.experts.rows_A.copy()),
        )


class _Watch:
    """Counts what goes wrong in its body; a generator would cost several times as much."""

    __slots__ = ("_clock", "_model", "_telemetry")

    def __init__(self, telemetry: "Telemetry", model: RankingModel, clock: Clock) -> None:
        self._telemetry, self._model, self._clock = telemetry, model, clock

    def __enter__(self) -> None:
        """Nothing is counted yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._telemetry.failed(self._model, self._clock.take(), error)


class Telemetry:
    """Counts; safe to share between threads, and cheap enough for every call."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._lock = threading.Lock()
        self._work: dict[tuple[str, int], ModelWork] = {}
        self._refusals: Counter[str] = Counter()

    def watching(self, model: RankingModel, clock: Clock) -> "_Watch":
        """Count a failure of the model if the body raises."""
        return _Watch(self, model, clock)

    def failed(self, model: RankingModel, laps: Mapping[Phase, int], error: BaseException) -> None:
        """Count a failure of the model."""
        with self._lock:
            work = self._of(model)
            work.failures[error.reason if isinstance(error, MoerankError) else "DEFECT"] += 1
            work.failure_ns += sum(laps.values())

    def succeeded(
        self, model: RankingModel, rows: int, laps: Mapping[Phase, int], executions: int = 1, trace: str = ""
    ) -> None:
        """Count an answer for so many rows, of a traced call if `trace` names one; of a shared run, one counts it."""
        with self._lock:
            self._succeeded(model, rows, laps, executions, trace)

    def _succeeded(
        self, model: RankingModel, rows: int, laps: Mapping[Phase, int], executions: int, trace: str
    ) -> ModelWork:
        work, total = self._of(model), sum(laps.values())
        work.successes += 1
        work.executions += executions
        work.rows += rows
        work.success_ns += total
        work.last_ms = time.time_ns() // 1_000_000
        work.latencies["total"].add(total, trace)
        for phase, nanoseconds in laps.items():
            work.phase_ns[phase] += nanoseconds
            work.latencies[phase].add(nanoseconds, trace)
        return work

    def ranked(
        self,
        model: RankingModel,
        answer: RankAnswer,
        laps: Mapping[Phase, int],
        executions: int = 1,
        trace: str = "",
    ) -> None:
        """Count a ranking, as `succeeded`: who was unknown, and, for a sample, how the predictions are distributed."""
        with self._lock:
            work = self._succeeded(model, len(answer.scores), laps, executions, trace)
            work.unknown_users += answer.unknown_user
            work.unknown_items += len(answer.unknown_items)
            # Nearly always there are none, and to count none costs as much as to count some.
            if answer.missing_context:
                work.missing_context.update(answer.missing_context)
            if answer.unseen_context:
                work.unseen_context.update(answer.unseen_context)
            if answer.clipped:
                work.clipped.update(answer.clipped)
            if answer.stage:
                work.stages[answer.stage] += 1
            if answer.experts is not None and work.experts is not None:
                work.experts.add(answer.experts)
            if work.successes % SAMPLE == 1:
                for task, values in answer.predictions.items():
                    work.distributions[task].add(values)

    def due(self, model: RankingModel, ahead: int = 0) -> bool:
        """Whether the next ranking, or the one so many after it, belongs to the sample whose experts are counted."""
        if not model.engine.gates:
            return False
        work = self._work.get((model.name, model.version))
        return ((work.successes if work else 0) + ahead) % SAMPLE == 0

    def refused(self, reason: str) -> None:
        """Count a call that never came to a model."""
        with self._lock:
            self._refusals[reason] += 1

    def work(self) -> list[ModelWork]:
        """Copies, by model and version."""
        with self._lock:
            return [work.copy() for _, work in sorted(self._work.items())]

    def refusals(self) -> dict[str, int]:
        """Calls that never came to a model, by reason."""
        with self._lock:
            return dict(self._refusals)

    def _of(self, model: RankingModel) -> ModelWork:
        key = (model.name, model.version)
        work = self._work.get(key)
        if work is None:
            distributions = {task.name: ValueDistribution.of(task) for task in model.bundle.schema.tasks}
            work = self._work[key] = ModelWork(model.name, model.version, distributions, experts=_load(model))
        return work


def _load(model: RankingModel) -> Load | None:
    sizes = {gate.level: gate.experts for gate in model.engine.gates}
    levels = tuple(level for level, experts in sorted(sizes.items()) for _ in range(experts))
    return Load(levels, np.zeros(len(levels), np.int64)) if levels else None
