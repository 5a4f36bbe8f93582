"""Shadows: score what was answered with another version as well, compare, and never answer with it.

A thread of its own and a short queue, so that no answer waits; what does not fit is dropped and counted.
"""

import logging
import queue
import threading
from dataclasses import dataclass, field, replace

import numpy as np

from contract.errors import MoerankError
from features.online.request_encoder import RankRequest
from serving.graph.answer import RankAnswer
from serving.graph.served_model import RankingModel

LOG = logging.getLogger("moerank.shadow")
WAITING = 64
"""How many answers may wait to be compared; they hold their requests in memory."""


@dataclass
class ShadowComparison:
    """How a shadow's answers differ from those given; `difference` sums |shadow - answer| over `rows` by task."""

    model: str
    version: int
    compared: int = 0
    failed: int = 0
    dropped: int = 0
    first_changed: int = 0
    rows: int = 0
    difference: dict[str, float] = field(default_factory=dict)

    def add(self, answer: RankAnswer, shadow: RankAnswer) -> None:
        """Count a pair of answers to one request, on the tasks that both predict."""
        self.compared += 1
        self.rows += len(answer.scores)
        self.first_changed += int(answer.order[0] != shadow.order[0])
        for task in answer.predictions.keys() & shadow.predictions.keys():
            gap = np.abs(answer.predictions[task].astype(np.float64) - shadow.predictions[task])
            self.difference[task] = self.difference.get(task, 0.0) + float(gap.sum())


Pair = tuple[RankingModel, RankRequest, RankAnswer]


class Shadows:
    """Compares in the background until it is closed."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Pair | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._comparisons: dict[tuple[str, int], ShadowComparison] = {}
        self._thread = threading.Thread(target=self._run, name="moerank-shadow", daemon=True)
        self._thread.start()

    def offer(self, model: RankingModel, request: RankRequest, answer: RankAnswer) -> None:
        """Compare an answer with that of a shadow soon, or drop it where too many wait."""
        try:
            self._queue.put_nowait((model, request, answer))
        except queue.Full:
            with self._lock:
                self._of(model).dropped += 1

    def comparisons(self) -> list[ShadowComparison]:
        """Copies, by model and version."""
        with self._lock:
            return [replace(arm, difference=dict(arm.difference)) for arm in self._comparisons.values()]

    def close(self) -> None:
        """End the thread after the comparison under way; those that wait are forgotten."""
        while True:
            try:
                self._queue.put_nowait(None)
                break
            except queue.Full:
                self._forget_one()
        self._thread.join()

    def _forget_one(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return

    def _run(self) -> None:
        while (pair := self._queue.get()) is not None:
            model, request, answer = pair
            try:
                shadow = model.rank(request)
            except Exception as error:  # noqa: BLE001 whatever a shadow does, the server goes on
                self._failed(model, error)
                continue
            with self._lock:
                self._of(model).add(answer, shadow)

    def _failed(self, model: RankingModel, error: Exception) -> None:
        with self._lock:
            comparison = self._of(model)
            comparison.failed += 1
            first = comparison.failed == 1
        if first:
            trace = None if isinstance(error, MoerankError) else error
            LOG.warning("the shadow %s version %d fails: %s", model.name, model.version, error, exc_info=trace)

    def _of(self, model: RankingModel) -> ShadowComparison:
        return self._comparisons.setdefault((model.name, model.version), ShadowComparison(model.name, model.version))
