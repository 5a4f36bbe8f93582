"""Replicas are replaced one after the other under load: no call of our clients fails."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.errors import MoerankError
from serving.client.aio_client import AsyncRankingClient
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.faults.conftest import Rounds
from tests.faults.load import BODY, RANK
from tests.patience import PATIENCE

ITEMS = list(range(100, 120))
ROUND_ROBIN = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]
Outcomes = Counter[str]
Caller = Callable[[str, threading.Event, Outcomes], None]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def call_synchronously(target: str, done: threading.Event, outcomes: Outcomes) -> None:
    with RankingClient(target, seconds=PATIENCE, attempts=20) as client:
        while not done.is_set():
            outcomes[named(lambda: client.rank(1, ITEMS))] += 1


def call_from_a_loop(target: str, done: threading.Event, outcomes: Outcomes) -> None:
    async def ask() -> None:
        async with AsyncRankingClient(target, seconds=PATIENCE, attempts=20) as client:
            while not done.is_set():
                try:
                    await client.rank(1, ITEMS)
                    outcomes["answered"] += 1
                except Exception as error:  # noqa: BLE001 any failure is what this test looks for
                    outcomes[type(error).__name__] += 1

    asyncio.run(ask())


def call_carelessly(target: str, done: threading.Event, outcomes: Outcomes) -> None:
    """Neither health nor another attempt."""
    with grpc.insecure_channel(target, ROUND_ROBIN) as channel:
        rank = channel.unary_unary(RANK, request_serializer=bytes, response_deserializer=bytes)
        while not done.is_set():
            outcomes[named(lambda: rank(BODY, timeout=PATIENCE))] += 1


def named(call: Callable[[], Any]) -> str:
    try:
        call()
    except MoerankError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 the same
        return f"bare {type(error).__name__}"
    return "answered"


def restarted(store: Path, callers: list[Caller], replicas: int, times: int, drain_seconds: float) -> Outcomes:
    """How calls ended while each replica was replaced so many times."""
    servers: dict[int, RunningServer] = {}
    outcomes, done = Outcomes(), threading.Event()

    def begin(port: int) -> None:
        servers[port] = start(ServerSettings(store=store, port=port, poll_seconds=600, threads=1))

    ports = free_ports(replicas)
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
                answered, end = outcomes["answered"], time.monotonic() + PATIENCE
                while outcomes["answered"] < answered + 20 and time.monotonic() < end:
                    time.sleep(0.01)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        for server in servers.values():
            server.stop()
    return outcomes


@pytest.mark.parametrize("call", [call_synchronously, call_from_a_loop])
def test_no_call_fails_while_replicas_are_replaced(store: Path, rounds: type[Rounds], call: Caller) -> None:
    outcomes = restarted(store, [call, call], rounds.of(2, 3), rounds.of(1, 5), drain_seconds=0.3)
    assert set(outcomes) == {"answered"}, outcomes
    assert outcomes["answered"] > rounds.of(20, 300)


def test_no_call_fails_even_where_replicas_end_without_a_drain(store: Path, rounds: type[Rounds]) -> None:
    outcomes = restarted(store, [call_synchronously] * 2, 2, rounds.of(1, 5), drain_seconds=0.0)
    assert set(outcomes) == {"answered"}, outcomes


def test_control_careless_callers_see_failures(store: Path, rounds: type[Rounds]) -> None:
    outcomes = restarted(store, [call_carelessly] * 4, 2, rounds.of(2, 3), drain_seconds=0.0)
    assert sum(count for name, count in outcomes.items() if name.startswith("bare")) > 0, outcomes
