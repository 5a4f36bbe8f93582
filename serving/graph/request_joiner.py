"""Requests of several users that are waiting at the same time, answered by one run of the packed graph.

The first request to arrive opens a run; it is closed when it has enough candidates, or when the first has waited for
the delay. While a run is under way the next one fills, so that under load nobody waits for the delay. Requests of a run
that failed are answered one by one: what is wrong with one user's must not fail another's.

Shape legend: n candidate rows of one request.
"""

import threading
import time
import weakref
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import PredictionError
from contract.inputs import Inputs

DELAY_SECONDS = 0.0005
MOST_ROWS = 4096
"""Candidates after which a run is closed."""
MOST_REQUESTS = 512
PATIENCE_SECONDS = 60.0
"""How long a run may take before its requests fail: a card that hangs must not hold every thread for ever."""
Predictions = dict[str, NDArray[np.float32]]


class Joined(Protocol):
    """What answers several requests in one run, as `serving.graph.batched_graph.BatchedEngine`."""

    def predict(self, requests: list[Inputs]) -> list[Predictions]:
        """Each request's predictions by task, float32 [n]."""


class _Waiting(NamedTuple):
    inputs: Inputs
    answer: "Future[Predictions]"


class RequestJoiner:
    """Joins what threads ask for at the same time; ends when nobody holds it any more."""

    def __init__(self, engine: Joined, delay_seconds: float = DELAY_SECONDS, most_rows: int = MOST_ROWS) -> None:
        """Run on an engine, with a thread of its own."""
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        arguments = (self._queue, engine, delay_seconds, most_rows)
        threading.Thread(target=_serve, args=arguments, name="moerank-joiner", daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def predict(self, inputs: Inputs) -> Predictions:
        """One request's predictions by task, float32 [n], as the engine answers it alone.

        Raises:
            PredictionError: the run failed, or took too long.
        """
        answer: Future[Predictions] = Future()
        self._queue.put(_Waiting(inputs, answer))
        try:
            return answer.result(PATIENCE_SECONDS)
        except TimeoutError as error:
            message = f"a run took longer than {PATIENCE_SECONDS:g} seconds"
            raise PredictionError(message) from error


def _serve(queue: "SimpleQueue[_Waiting | None]", engine: Joined, delay_seconds: float, most_rows: int) -> None:
    left_over: _Waiting | None = None
    while True:
        first = left_over or queue.get()
        if first is None:
            return
        run, left_over, ended = _fill(queue, first, delay_seconds, most_rows)
        _answer(engine, run)
        del first, run
        if ended:
            return


def _fill(
    queue: "SimpleQueue[_Waiting | None]", first: _Waiting, delay_seconds: float, most_rows: int
) -> tuple[list[_Waiting], _Waiting | None, bool]:
    """The requests of a run, one that did not fit into it any more, and whether nothing else will come."""
    run, rows, closes = [first], first.inputs.candidate.rows, time.monotonic() + delay_seconds
    while rows < most_rows and len(run) < MOST_REQUESTS:
        left = closes - time.monotonic()
        try:
            # What has come meanwhile is taken, also after the delay.
            waiting = queue.get_nowait() if left <= 0 else queue.get(timeout=left)
        except Empty:
            break
        if waiting is None:
            return run, None, True
        if rows + waiting.inputs.candidate.rows > most_rows:
            return run, waiting, False
        run.append(waiting)
        rows += waiting.inputs.candidate.rows
    return run, None, False


def _answer(engine: Joined, run: list[_Waiting]) -> None:
    try:
        answers = engine.predict([each.inputs for each in run])
    except Exception as error:  # noqa: BLE001 whatever it is, it belongs to those who wait, and the thread goes on
        if len(run) == 1:
            run[0].answer.set_exception(error)
            return
        for each in run:
            _answer(engine, [each])
        return
    for each, answer in zip(run, answers, strict=True):
        each.answer.set_result(answer)
