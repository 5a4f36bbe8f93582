"""The clients' own behaviour: types, deadlines, retries, errors."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import RequestError, UnavailableError
from serving.client import client_request
from serving.client.aio_client import AsyncRankingClient
from serving.client.blocking_client import Query, RankingClient
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_the_asyncio_client_answers_as_the_synchronous_one(server: RunningServer, client: RankingClient) -> None:
    async def ask() -> None:
        async with AsyncRankingClient(f"127.0.0.1:{server.port}") as other:
            one, two = await asyncio.gather(other.rank(1, [100, 101]), other.batch_rank([Query(1, [100, 101])]))
            assert one.ranked == two[0].ranked == client.rank(1, [100, 101]).ranked
            assert (await other.model()).name == (await other.models())[0].name == "tiny"
            with pytest.raises(RequestError):
                await other.rank(1, [])

    asyncio.run(ask())


def test_no_server_is_one_clear_error() -> None:
    with (
        RankingClient(f"127.0.0.1:{free_port()}", attempts=1, seconds=2) as client,
        pytest.raises(UnavailableError, match="start one with `moerank serve STORE`"),
    ):
        client.rank(1, [100])
    with RankingClient(f"127.0.0.1:{free_port()}") as client, pytest.raises(UnavailableError, match=r"after 0\.2 sec"):
        client.wait_until_ready(0.2)


def test_a_call_is_retried_until_the_server_is_there(store: Path) -> None:
    port = free_port()
    started: list[RunningServer] = []

    def start_late() -> None:
        time.sleep(0.3)
        started.append(start(ServerSettings(store=store, port=port)))

    thread = threading.Thread(target=start_late)
    thread.start()
    with RankingClient(f"127.0.0.1:{port}", seconds=10) as client:
        client.wait_until_ready(10)
        assert client.rank(1, [100]).version == 1
    thread.join()
    started[0].stop()


@pytest.mark.parametrize("items", [[1, "a"], [1.5], [2**63], [True], [None]])
def test_ids_of_other_types_are_refused_before_they_are_sent(items: list[object]) -> None:
    with pytest.raises(RequestError, match="items holds"):
        client_request.build_request(user=1, items=items)  # type: ignore[arg-type]


def test_numpy_values_travel_as_plain_ones() -> None:
    request = client_request.build_request(
        user=np.int64(3),  # type: ignore[arg-type]
        items=np.array([1, 2]),
        context={"a": np.float32(0.5), "b": np.array([1, 2]), "c": np.bool_(1)},
        item_features={"d": np.array([1.5, 2.5])},
    )
    assert request.user.integer == 3
    assert list(request.items.integers.values) == [1, 2]
    assert request.context["a"].number == 0.5
    assert [value.integer for value in request.context["b"].values.values] == [1, 2]
    assert request.context["c"].flag
    assert list(request.item_features["d"].numbers.values) == [1.5, 2.5]


def test_columns_are_packed_where_they_can_be() -> None:
    kinds: dict[str, list[Any]] = {
        "integers": [1, 2],
        "numbers": [1.0],
        "texts": ["a"],
        "flags": [True, False],
        "values": [1, None],
    }
    for kind, contents in kinds.items():
        assert client_request.column("x", contents).WhichOneof("kind") == kind


def test_a_value_of_a_strange_type_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"context\.when is a complex"):
        client_request.build_request(user=1, items=[1], context={"when": 1j})
