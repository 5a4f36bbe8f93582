"""One of two replicas freezes, which closes no connection: our clients' calls do not fail, and it is left alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path

import pytest

from benchmarks.serving_process import by_statistics
from serving.client.blocking_client import RankingClient
from serving.client.channel import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.faults.callers import ANSWERED, Outcomes, call_from_a_loop, call_synchronously, careless
from tests.faults.conftest import FRONTS, Front
from tests.faults.load import Served, serving
from tests.patience import wait_until

DEADLINE: float = signature(RankingClient).parameters["seconds"].default
"""Seconds of a call that says nothing of it; ours get three times as many, for machines that are busy."""
MANY = 100


@contextmanager
def frozen(served: Served) -> Iterator[None]:
    served.process.suspend()
    try:
        yield
    finally:
        # It could not end otherwise.
        served.process.resume()


@contextmanager
def calling(target: str) -> Iterator[list[Outcomes]]:
    """Both clients, and how their calls end."""
    done, outcomes = threading.Event(), [Outcomes(), Outcomes()]
    threads = [
        threading.Thread(target=call, args=(target, done, seen), kwargs={"seconds": 3 * DEADLINE})
        for call, seen in zip((call_synchronously, call_from_a_loop), outcomes, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        done.set()
        for thread in threads:
            thread.join()


def wait_for_answers(outcomes: list[Outcomes]) -> None:
    """Many more to each client."""
    enough = [seen[ANSWERED] + MANY for seen in outcomes]
    wait_until(lambda: all(seen[ANSWERED] >= count for seen, count in zip(outcomes, enough, strict=True)))


def test_a_frozen_replica_is_noticed_within_a_deadline_with_time_left_for_another() -> None:
    assert KEEPALIVE_MS + KEEPALIVE_TIMEOUT_MS <= 0.8 * 1000 * DEADLINE


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_no_call_fails_while_a_replica_is_frozen_and_it_takes_part_again(store: Path, front: Front) -> None:
    with start(ServerSettings(store=store, port=0)) as live, serving(store, "--front", front) as other:
        target = f"ipv4:127.0.0.1:{live.port},127.0.0.1:{other.port}"
        with careless(target, DEADLINE) as call:
            wait_until(lambda: call() == ANSWERED and by_statistics(other.port) > 0)
            with calling(target) as ours:
                wait_for_answers(ours)
                with frozen(other):
                    # The control: within two calls it is the frozen one's turn, for the whole of a deadline.
                    assert {call(), call()} != {ANSWERED}
                    # So long nobody of ours waited: each second call would be the frozen one's, if it still got any.
                    wait_for_answers(ours)
                reached = by_statistics(other.port)
                wait_until(lambda: by_statistics(other.port) > reached)
                wait_for_answers(ours)
    assert [set(seen) for seen in ours] == [{ANSWERED}, {ANSWERED}], ours
