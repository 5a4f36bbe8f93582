"""Replicas are replaced one after the other under load: no call of our clients fails."""

import threading
from pathlib import Path

import pytest

from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.faults.callers import ANSWERED, Caller, Outcomes, call_carelessly, call_from_a_loop, call_synchronously
from tests.faults.conftest import Rounds, Tell
from tests.patience import wait_until
from tests.ports import free_port


def wait_for_more(outcomes: Outcomes, answers: int) -> None:
    enough = outcomes[ANSWERED] + answers
    wait_until(lambda: outcomes[ANSWERED] >= enough)


def restarted(store: Path, callers: list[Caller], replicas: int, times: int, drain_seconds: float) -> Outcomes:
    """How calls ended while each replica was replaced so many times."""
    servers: dict[int, RunningServer] = {}
    outcomes, done = Outcomes(), threading.Event()

    def begin(port: int) -> None:
        servers[port] = start(ServerSettings(store=store, port=port, poll_seconds=600, threads=1))

    ports = [free_port() for _ in range(replicas)]
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    threads = [threading.Thread(target=call, args=(target, done, outcomes)) for call in callers]
    try:
        for port in ports:
            begin(port)
        for thread in threads:
            thread.start()
        for _ in range(times):
            for port in ports:
                servers.pop(port).stop(drain_seconds=drain_seconds, grace_seconds=5.0 if drain_seconds else 0.0)
                begin(port)
                wait_for_more(outcomes, 20)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for server in servers.values():
            server.stop()
    return outcomes


@pytest.mark.parametrize("call", [call_synchronously, call_from_a_loop])
def test_no_call_fails_while_replicas_are_replaced(
    store: Path, rounds: type[Rounds], call: Caller, record_property: Tell
) -> None:
    outcomes = restarted(store, [call, call], rounds.of(2, 3), rounds.of(1, 5), drain_seconds=0.3)
    record_property("calls", dict(outcomes))
    assert set(outcomes) == {"answered"}, outcomes
    assert outcomes["answered"] > rounds.of(20, 300)


def test_no_call_fails_even_where_replicas_end_without_a_drain(store: Path, rounds: type[Rounds]) -> None:
    outcomes = restarted(store, [call_synchronously] * 2, 2, rounds.of(1, 5), drain_seconds=0.0)
    assert set(outcomes) == {"answered"}, outcomes


def test_control_careless_callers_see_failures(store: Path, rounds: type[Rounds]) -> None:
    outcomes = restarted(store, [call_carelessly] * 4, 2, rounds.of(2, 3), drain_seconds=0.0)
    assert sum(count for name, count in outcomes.items() if name.startswith("bare")) > 0, outcomes
