"""Callers that go on until they are told to stop, and count how their calls end."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from contract.errors import MoerankError
from serving.client.aio_client import AsyncRankingClient
from serving.client.blocking_client import RankingClient
from serving.client.channel import authority_options
from tests.faults.load import BODY, RANK
from tests.patience import PATIENCE

ANSWERED = "answered"
ITEMS = list(range(100, 120))
ROUND_ROBIN: list[tuple[str, Any]] = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]
PATIENT: dict[str, Any] = {"seconds": PATIENCE, "attempts": 20}
Outcomes = Counter[str]
Caller = Callable[[str, threading.Event, Outcomes], None]


def call_synchronously(target: str, done: threading.Event, outcomes: Outcomes, **settings: Any) -> None:
    with RankingClient(target, **(settings or PATIENT)) as client:
        while not done.is_set():
            outcomes[named(lambda: client.rank(1, ITEMS))] += 1


def call_from_a_loop(target: str, done: threading.Event, outcomes: Outcomes, **settings: Any) -> None:
    async def ask() -> None:
        async with AsyncRankingClient(target, **(settings or PATIENT)) as client:
            while not done.is_set():
                try:
                    await client.rank(1, ITEMS)
                    outcomes[ANSWERED] += 1
                except Exception as error:  # noqa: BLE001 any failure is what is looked for
                    outcomes[type(error).__name__] += 1

    asyncio.run(ask())


def call_carelessly(target: str, done: threading.Event, outcomes: Outcomes) -> None:
    with careless(target, PATIENCE) as call:
        while not done.is_set():
            outcomes[call()] += 1


@contextmanager
def careless(target: str, seconds: float) -> Iterator[Callable[[], str]]:
    """Neither health nor keepalive nor another attempt."""
    with grpc.insecure_channel(target, ROUND_ROBIN + authority_options(target)) as channel:
        rank = channel.unary_unary(RANK, request_serializer=bytes, response_deserializer=bytes)
        yield lambda: named(lambda: rank(BODY, timeout=seconds))


def named(call: Callable[[], Any]) -> str:
    try:
        call()
    except MoerankError as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 the same
        return f"bare {type(error).__name__}"
    return ANSWERED
