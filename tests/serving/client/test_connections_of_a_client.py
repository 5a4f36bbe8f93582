"""A client spreads its calls over so many connections as it was told to hold."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from contract.errors import RequestError
from serving.client.aio_client import AsyncRankingClient
from serving.client.blocking_client import RankingClient
from tests.patience import PATIENCE, wait_until
from tests.serving.client.flaky_server import Flaky, held


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_the_connections_of_a_client_are_used_in_turns(kind: str) -> None:
    async def ask(port: int) -> None:
        async with AsyncRankingClient(f"127.0.0.1:{port}", connections=3) as client:
            for _ in range(6):
                await client.rank(1, [100])

    with Flaky() as server:
        if kind == "asyncio":
            asyncio.run(ask(server.port))
        else:
            with RankingClient(f"127.0.0.1:{server.port}", connections=3) as client:
                client.wait_until_ready(PATIENCE)
                for _ in range(6):
                    client.rank(1, [100])
    assert sorted(Counter(call["peer"] for call in server.seen).values()) == [2, 2, 2]


def test_a_call_takes_the_connection_with_the_fewest_calls_under_way() -> None:
    with (
        ThreadPoolExecutor(1) as callers,
        held() as slow,
        Flaky(slow) as server,
        RankingClient(f"127.0.0.1:{server.port}", connections=2) as client,
    ):
        callers.submit(client.rank, 1, [100])
        wait_until(lambda: server.seen)
        for _ in range(3):
            client.rank(1, [100])
        busy, *others = (call["peer"] for call in server.seen)
    assert len(set(others)) == 1
    assert busy not in others


@pytest.mark.parametrize("connections", [0, -1, True, 1.5, "2"])
def test_numbers_of_connections_that_no_client_can_have_are_refused(connections: Any) -> None:
    with pytest.raises(RequestError, match=r"connections is .*; allowed are whole numbers from 1") as refused:
        RankingClient("127.0.0.1:9", connections=connections)
    assert refused.value.field == "connections"
