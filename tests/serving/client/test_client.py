"""The clients' own behaviour: types, deadlines, retries, errors."""

import asyncio
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from contract.errors import DeadlineError, OverloadedError, RequestError, ServerError, UnavailableError
from serving.api.status import RETRY_SECONDS, status_of
from serving.client import client_request
from serving.client.aio_client import AsyncRankingClient
from serving.client.attempts import CallOptions
from serving.client.blocking_client import Query, RankingClient
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.unary_handlers import request_id_of
from tests.patience import PATIENCE, wait_until
from tests.ports import free_port
from tests.serving.client.flaky_server import Flaky, held


def test_the_asyncio_client_answers_as_the_synchronous_one(server: RunningServer, client: RankingClient) -> None:
    async def ask() -> None:
        async with AsyncRankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as other:
            one, two = await asyncio.gather(other.rank(1, [100, 101]), other.batch_rank([Query(1, [100, 101])]))
            assert one.ranked == two[0].ranked == client.rank(1, [100, 101]).ranked
            assert (await other.model()).name == (await other.models())[0].name == "tiny"
            with pytest.raises(RequestError):
                await other.rank(1, [])

    asyncio.run(ask())


def test_no_server_is_one_clear_error() -> None:
    with (
        RankingClient(f"127.0.0.1:{free_port()}", attempts=1, seconds=PATIENCE) as client,
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
    with RankingClient(f"127.0.0.1:{port}", seconds=PATIENCE) as client:
        client.wait_until_ready(PATIENCE)
        assert client.rank(1, [100]).version == 1
    thread.join()
    started[0].stop()


@pytest.mark.parametrize("items", [[1, "a"], [1.5], [2**64], [True], [None]])
def test_ids_of_other_types_are_refused_before_they_are_sent(items: list[object]) -> None:
    with pytest.raises(RequestError, match="items holds"):
        client_request.build_request(user=1, items=items)  # type: ignore[arg-type]


@pytest.mark.parametrize("items", [["s1", 2, 3], [2, "s1"], [np.int64(2), "s1", "s2"]])
def test_a_list_of_whole_numbers_and_texts_is_refused_as_a_mixture(items: list[object]) -> None:
    with pytest.raises(RequestError, match=r"texts and whole numbers, such as 's1' and .*2") as refused:
        client_request.build_request(user=1, items=items)  # type: ignore[arg-type]
    assert refused.value.field == "items"


@pytest.mark.parametrize(
    ("user", "top_k", "words"),
    [("u", -1, "top_k"), ("u", 2**40, "top_k"), ("\ud800", 0, "user")],
    ids=["negative", "beyond 32 bits", "a lone surrogate"],
)
def test_what_no_message_can_hold_is_refused_by_its_name(user: str, top_k: int, words: str) -> None:
    with RankingClient("127.0.0.1:9", seconds=0.2, attempts=1) as client, pytest.raises(RequestError, match=words):
        client.rank(user, ["a"], top_k=top_k)


@pytest.mark.parametrize(
    "words",
    [
        {"items": "abc"},
        {"items": 5},
        {"context": {1: 2}},
        {"context": [1]},
        {"top_k": 1.5},
        {"top_k": "1"},
        {"top_k": True},
        {"score": 3},
    ],
    ids=str,
)
def test_arguments_of_other_types_are_refused_by_their_name(words: dict[str, Any]) -> None:
    with (
        RankingClient("127.0.0.1:9", seconds=0.2, attempts=1) as client,
        pytest.raises(RequestError, match=next(iter(words))),
    ):
        client.rank("u", **({"items": ["a"]} | words))


def test_a_decimal_travels_as_a_number() -> None:
    assert client_request.value("a", Decimal("1.5")).number == 1.5


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


def overloaded(context: grpc.ServicerContext) -> None:
    status = status_of(OverloadedError("too much"), "r1")
    context.abort_with_status(rpc_status.to_status(status))


def cancelled(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.CANCELLED, "the server ended")


def unknown(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNKNOWN, "a bug")


def rank(kind: str, port: int, options: CallOptions | None = None, **named: Any) -> None:
    """One call of a client of either kind, which waits longer than any busy machine takes."""
    named = {"seconds": PATIENCE, **named}

    async def ask() -> None:
        async with AsyncRankingClient(f"127.0.0.1:{port}", **named) as client:
            await client.rank(1, [100], options=options)

    if kind == "asyncio":
        asyncio.run(ask())
    else:
        with RankingClient(f"127.0.0.1:{port}", **named) as client:
            client.rank(1, [100], options=options)


KINDS = pytest.mark.parametrize("kind", ["blocking", "asyncio"])


@KINDS
def test_a_server_that_is_overloaded_is_asked_again_when_it_says_so(kind: str) -> None:
    with Flaky(overloaded) as server:
        rank(kind, server.port)
        first, second = (call["at"] for call in server.seen)
        assert second - first >= RETRY_SECONDS
    with Flaky(overloaded) as server, pytest.raises(OverloadedError) as refused:
        rank(kind, server.port, attempts=1)
    assert refused.value.request_id == "r1"


@KINDS
def test_a_call_that_a_server_cancels_as_it_ends_is_made_again(kind: str) -> None:
    with Flaky(cancelled, cancelled) as server:
        rank(kind, server.port)
        assert len(server.seen) == 3
    with Flaky(cancelled) as server, pytest.raises(UnavailableError):
        rank(kind, server.port, attempts=1)


@KINDS
def test_a_failure_of_the_server_has_a_name_and_is_not_tried_again(kind: str) -> None:
    with Flaky(unknown) as server, pytest.raises(ServerError, match="a bug"):
        rank(kind, server.port)
    assert len(server.seen) == 1


@KINDS
def test_one_call_may_have_its_own_deadline_metadata_and_request_id(kind: str) -> None:
    with Flaky() as server:
        options = CallOptions(metadata=(("x-team", "shop"),), request_id="r-17")
        rank(kind, server.port, options, metadata=[("x-app", "web")])
        assert {name: server.seen[0][name] for name in ("x-team", "x-app", "x-request-id")} == {
            "x-team": "shop",
            "x-app": "web",
            "x-request-id": "r-17",
        }
    with held() as slow, Flaky(slow) as server, pytest.raises(DeadlineError):
        rank(kind, server.port, CallOptions(seconds=0.2))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (CallOptions(seconds=0), "seconds"),
        (CallOptions(seconds=float("nan")), "seconds"),
        (CallOptions(seconds=float("inf")), "seconds"),
        (CallOptions(hedge_seconds=-1), "hedge_seconds"),
        (CallOptions(request_id="r-ü"), "request_id"),
        (CallOptions(request_id="r" * 65), "request_id"),
        (CallOptions(metadata=(("X-Team", "shop"),)), "metadata"),
        (CallOptions(metadata=(("x-team", "a\nb"),)), "metadata"),
    ],
)
def test_options_that_no_call_can_have_are_refused_by_name(options: CallOptions, field: str) -> None:
    with Flaky() as server, pytest.raises(RequestError, match=field) as refused:
        rank("blocking", server.port, options)
    assert refused.value.field == field
    assert not server.seen


def test_the_longest_request_id_is_one_that_the_server_takes_over() -> None:
    longest = "r" * 64
    with Flaky() as server:
        rank("blocking", server.port, CallOptions(request_id=longest, metadata=(("x-trace-bin", b"\xff"),)))
    assert request_id_of(server.seen[0].items()) == longest


@KINDS
def test_a_hedged_call_is_sent_once_more_and_the_first_answer_counts(kind: str) -> None:
    with held() as slow, Flaky(slow) as server:
        # It returns, though the first call is still held.
        rank(kind, server.port, CallOptions(hedge_seconds=0.1))
        wait_until(lambda: len(server.seen) == 2)
    with held() as slow, Flaky(slow) as server:
        rank(kind, server.port, hedge_seconds=0.1)
        wait_until(lambda: len(server.seen) == 2)
    with Flaky() as server:
        rank(kind, server.port, CallOptions(hedge_seconds=PATIENCE))
        assert len(server.seen) == 1


def test_calls_go_to_servers_that_say_serving(store: Path) -> None:
    with (
        start(ServerSettings(store=store, port=0)) as good,
        start(ServerSettings(store=store, port=0)) as draining,
        RankingClient(f"ipv4:127.0.0.1:{good.port},127.0.0.1:{draining.port}", seconds=PATIENCE) as client,
    ):

        def reached() -> int:
            return sum(work.successes for work in draining.telemetry.work())

        def nobody_comes() -> bool:
            before = reached()
            for _ in range(40):
                client.rank(1, [100])
            return reached() == before

        # Both are asked once both are connected.
        wait_until(lambda: not nobody_comes())
        draining.health.drain()
        wait_until(nobody_comes)
