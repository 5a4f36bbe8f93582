"""Requests that wait at the same time share a run, and each gets its own answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contract.errors import PredictionError
from contract.inputs import Inputs
from serving.graph.request_joiner import Predictions, RequestJoiner
from tests.models.small import inputs, small_schema
from tests.patience import PATIENCE, wait_until

SCHEMA = small_schema()


class Slow:
    """Answers the first candidate's first id, when it may, and remembers how many requests each run had."""

    def __init__(self) -> None:
        self.go, self.runs = threading.Event(), list[int]()

    def predict(self, requests: list[Inputs]) -> list[Predictions]:
        self.runs.append(len(requests))
        assert self.go.wait(PATIENCE)
        return [{"like": each.candidate.ids[:, 0].astype(np.float32)} for each in requests]


class Broken:
    def predict(self, requests: list[Inputs]) -> list[Predictions]:
        del requests
        message = "the card is gone"
        raise PredictionError(message)


def answered(asked: list[Inputs], engine: Slow, **limits: int) -> list[Predictions]:
    """Answers to requests of as many threads; the first run ends when all the others wait."""
    joiner = RequestJoiner(engine, **limits)
    with ThreadPoolExecutor(len(asked)) as pool:
        calls = [pool.submit(joiner.predict, each) for each in asked]
        # One may have been taken from the queue and found too large for the run.
        wait_until(lambda: sum(engine.runs) + joiner._queue.qsize() >= len(asked) - 1)
        engine.go.set()
        return [call.result() for call in calls]


def test_what_waits_together_shares_a_run_and_is_answered_in_its_own_order() -> None:
    engine = Slow()
    asked = [inputs(SCHEMA, 1, 1 + seed % 7, seed=seed) for seed in range(24)]
    for each, answer in zip(asked, answered(asked, engine), strict=True):
        np.testing.assert_array_equal(answer["like"], each.candidate.ids[:, 0])
    assert sum(engine.runs) == 24
    assert len(engine.runs) <= 4


def test_a_run_is_closed_when_it_has_enough_candidates() -> None:
    engine = Slow()
    answers = answered([inputs(SCHEMA, 1, 8, seed=seed) for seed in range(6)], engine, most_rows=20)
    assert [len(answer["like"]) for answer in answers] == [8] * 6
    assert max(engine.runs) == 2


def test_a_request_alone_waits_no_longer_than_the_delay() -> None:
    engine = Slow()
    engine.go.set()
    joiner = RequestJoiner(engine, delay_seconds=0.001)
    assert len(joiner.predict(inputs(SCHEMA, 1, 3))["like"]) == 3
    assert engine.runs == [1]


def test_a_failed_run_fails_its_requests_and_no_later_ones() -> None:
    joiner = RequestJoiner(Broken())
    for _ in range(2):
        with pytest.raises(PredictionError, match="the card is gone"):
            joiner.predict(inputs(SCHEMA, 1, 3))


class Poisoned(Slow):
    """Fails as a whole where one request's first id is so."""

    def predict(self, requests: list[Inputs]) -> list[Predictions]:
        answers = super().predict(requests)
        if any(answer["like"][0] == -1 for answer in answers):
            message = "values that are not finite"
            raise PredictionError(message)
        return answers


def test_one_users_failure_is_not_that_of_those_who_share_its_run() -> None:
    engine = Poisoned()
    asked = [inputs(SCHEMA, 1, 3, seed=seed) for seed in range(6)]
    asked[4].candidate.ids[0, 0] = -1
    joiner = RequestJoiner(engine)
    with ThreadPoolExecutor(len(asked)) as pool:
        calls = [pool.submit(joiner.predict, each) for each in asked]
        wait_until(lambda: sum(engine.runs) + joiner._queue.qsize() >= len(asked) - 1)
        engine.go.set()
    failed = [call.exception() for call in calls]
    assert [type(each) for each in failed] == [type(None)] * 4 + [PredictionError, type(None)]
    assert max(engine.runs) > 1


def test_its_thread_ends_when_nobody_holds_it() -> None:
    engine = Slow()
    engine.go.set()
    joiner = RequestJoiner(engine)
    joiner.predict(inputs(SCHEMA, 1, 1))
    (thread,) = [each for each in threading.enumerate() if each.name == "moerank-joiner" and each.is_alive()][-1:]
    del joiner
    thread.join(PATIENCE)
    assert not thread.is_alive()
