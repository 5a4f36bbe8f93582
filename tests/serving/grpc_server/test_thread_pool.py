"""The pool of threads: it counts, it outlives errors, it ends."""

import threading

import pytest

from serving.grpc_server.thread_pool import CountingPool
from tests.patience import PATIENCE


def test_what_waits_and_runs_is_counted() -> None:
    pool, go, seen = CountingPool(1), threading.Event(), threading.Semaphore(0)

    def work() -> None:
        seen.release()
        go.wait(PATIENCE)

    for _ in range(3):
        pool.submit(work)
    assert seen.acquire(timeout=PATIENCE)
    assert pool.pending == 3
    assert not pool.wait_idle(0.02)
    go.set()
    assert pool.wait_idle(PATIENCE)
    assert pool.pending == 0
    pool.shutdown()


def test_a_call_knows_how_long_it_waited_for_its_thread() -> None:
    pool, go, waited = CountingPool(1), threading.Event(), list[float]()
    pool.submit(go.wait, PATIENCE)
    pool.submit(lambda: waited.append(pool.waited()))
    threading.Timer(0.1, go.set).start()
    assert pool.wait_idle(PATIENCE)
    assert waited[0] >= 0.05
    pool.shutdown()


def test_a_thread_outlives_what_fails_on_it(caplog: pytest.LogCaptureFixture) -> None:
    pool, answered = CountingPool(1), list[int]()
    pool.submit(lambda: 1 / 0)
    pool.submit(answered.append, 1)
    assert pool.wait_idle(PATIENCE)
    assert answered == [1]
    assert "work in the pool failed" in caplog.text
    pool.shutdown()


def test_what_was_submitted_runs_before_the_end_and_nothing_after() -> None:
    pool, answered = CountingPool(2), list[int]()
    for number in range(50):
        pool.submit(answered.append, number)
    pool.shutdown()
    assert sorted(answered) == list(range(50))
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(answered.append, 1)
