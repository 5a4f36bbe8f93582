"""The front in Rust: the same answers, refusals, health and end as through grpcio."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pydantic import ValidationError

from contract.errors import AuthenticationError, DeadlineError, OverloadedError, RequestError, UnavailableError
from serving.api.rank_service import SERVICE_NAME
from serving.client.blocking_client import RankingClient
from serving.client.client_request import build_request
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.serving.held_calls import Held
from tests.tiny_bundle import publish_tiny

pytest.importorskip("pygrpc_native", reason="the extra moerank[native] is not installed")

RANK = f"/{SERVICE_NAME}/Rank"
BODY = build_request(user=1, items=[100, 101, 102]).SerializeToString()


@pytest.fixture
def settings(store: Path) -> ServerSettings:
    return ServerSettings(store=store, port=0, front="native", poll_seconds=0.05, max_candidates=50, threads=2)


@pytest.fixture
def server(settings: ServerSettings) -> Iterator[RunningServer]:
    with start(settings) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[RankingClient]:
    with RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as connected:
        yield connected


@contextmanager
def channel_to(server: RunningServer) -> Iterator[Any]:
    """grpcio's stubs ask for serializers, without which calls take and give bytes."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


class Asking:
    """A ranking on a thread of its own."""

    def __init__(self, client: RankingClient) -> None:
        self.versions: list[int] = []
        self._thread = threading.Thread(target=lambda: self.versions.append(client.rank(1, [100]).version))
        self._thread.start()

    def answered(self) -> bool:
        self._thread.join(PATIENCE)
        return self.versions == [1]


def test_answers_are_those_of_grpcio(store: Path, client: RankingClient) -> None:
    items = [100 + i for i in range(20)]
    with (
        start(ServerSettings(store=store, port=0)) as other,
        RankingClient(f"127.0.0.1:{other.port}", seconds=PATIENCE) as plain,
    ):
        ours, theirs = client.rank(3, items, context={"tab": "home"}), plain.rank(3, items, context={"tab": "home"})
    assert ours.ranked == theirs.ranked
    for task, values in theirs.answer.predictions.items():
        np.testing.assert_array_equal(ours.answer.predictions[task], values)


def test_a_wrong_request_is_told_the_field_and_the_reason(server: RunningServer, client: RankingClient) -> None:
    with pytest.raises(RequestError) as caught:
        client.rank(1, [100], user_features={"no_such": 1})
    assert caught.value.field == "user_features.no_such"
    with channel_to(server) as channel, pytest.raises(grpc.RpcError) as seen:
        channel.unary_unary(RANK)(b"\xff", timeout=PATIENCE)
    error: Any = seen.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "REQUEST_INVALID"


def test_health_follows_the_server_and_reflection_names_the_services(settings: ServerSettings) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    server = start(settings)
    with channel_to(server) as channel:
        assert SERVICE_NAME in ProtoReflectionDescriptorDatabase(channel).get_services()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert next(watch).status == serving
        ending = threading.Thread(target=server.stop, kwargs={"drain_seconds": 0.3, "grace_seconds": 2.0})
        ending.start()
        assert next(watch).status == not_serving
        watch.cancel()
        ending.join()


def test_an_unknown_method_is_not_implemented(server: RunningServer) -> None:
    with channel_to(server) as channel, pytest.raises(grpc.RpcError) as seen:
        channel.unary_unary(f"/{SERVICE_NAME}/Guess")(b"", timeout=PATIENCE)
    error: Any = seen.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_is_too_much_is_refused_at_once_and_told_when_to_try_again(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(settings.model_copy(update={"threads": 1, "max_queue": 0})) as server:
        held = Held(server, monkeypatch)
        with RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client:
            first = Asking(client)
            assert held.entered.acquire(timeout=PATIENCE)
            with pytest.raises(OverloadedError) as caught:
                client.rank(1, [100])
            error: Any = caught.value.__cause__
            details = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
            assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
            held.go.set()
            assert first.answered()
            # An answer is sent before its thread is free.
            wait_until(lambda: server._pool.pending == 0)
            assert client.rank(1, [100]).version == 1
        assert server.telemetry.refusals()["OVERLOADED"] == 1


def test_a_call_whose_deadline_passed_in_the_queue_never_reaches_the_model(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(settings.model_copy(update={"threads": 1})) as server:
        held, expire, submit = Held(server, monkeypatch), list[float](), server._pool.submit

        def submitted(*given: Any) -> None:
            expire.append(given[-1])
            submit(*given)

        monkeypatch.setattr(server._pool, "submit", submitted)
        target = f"127.0.0.1:{server.port}"
        with (
            RankingClient(target, attempts=1, seconds=PATIENCE) as client,
            RankingClient(target, attempts=1, seconds=1) as hasty,
        ):
            hasty.wait_until_ready(PATIENCE)
            first = Asking(client)
            assert held.entered.acquire(timeout=PATIENCE)
            with pytest.raises(DeadlineError):
                hasty.rank(1, [101])
            # The caller's clock began earlier than the server's.
            wait_until(lambda: time.monotonic() > min(expire))
            held.go.set()
            assert first.answered()
            assert client.rank(1, [100]).version == 1
        assert [work.successes for work in server.telemetry.work()] == [2]
        assert server.telemetry.refusals() == {"DEADLINE_EXCEEDED": 1}


def test_a_call_that_was_given_up_never_reaches_the_model(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(settings.model_copy(update={"threads": 1})) as server:
        held = Held(server, monkeypatch)
        with (
            RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client,
            channel_to(server) as channel,
        ):
            first = Asking(client)
            assert held.entered.acquire(timeout=PATIENCE)
            call: Any = channel.unary_unary(RANK).future(BODY, timeout=PATIENCE)
            wait_until(lambda: server._pool.pending == 2)
            call.cancel()
            listener: Any = server._listener
            wait_until(lambda: not listener._open)
            held.go.set()
            assert first.answered()
            assert client.rank(1, [100]).version == 1
        assert [work.successes for work in server.telemetry.work()] == [2]


def test_tokens_are_asked_for_and_health_needs_none(settings: ServerSettings, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond\n", encoding="ascii")
    with start(settings.model_copy(update={"token_file": tmp_path / "tokens"})) as server:
        target = f"127.0.0.1:{server.port}"
        with RankingClient(target, attempts=1, seconds=PATIENCE) as stranger, pytest.raises(AuthenticationError):
            stranger.rank(1, [100])
        with channel_to(server) as channel:
            assert channel.unary_unary(RANK)(BODY, metadata=(("authorization", "Bearer second"),), timeout=PATIENCE)
            assert (
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
            )


def test_a_message_beyond_the_limit_is_refused(settings: ServerSettings) -> None:
    with (
        start(settings.model_copy(update={"max_message_bytes": 2048})) as server,
        channel_to(server) as channel,
        pytest.raises(grpc.RpcError) as seen,
    ):
        channel.unary_unary(RANK)(b"a" * 2049, timeout=PATIENCE)
    error: Any = seen.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_under_way_end_well_while_new_ones_are_refused(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(settings)
    held = Held(server, monkeypatch)
    with RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client:
        first = Asking(client)
        assert held.entered.acquire(timeout=PATIENCE)
        ending = threading.Thread(target=server.stop)
        ending.start()
        listener: Any = server._listener
        wait_until(lambda: listener._inner._admission.stopping)
        with pytest.raises(UnavailableError):
            client.rank(1, [100])
        held.go.set()
        assert first.answered()
        ending.join()


def test_damaged_messages_end_with_a_status_that_blames_the_caller(server: RunningServer) -> None:
    chance = random.Random(0)  # noqa: S311 nothing here is secret
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    seen = set()
    with channel_to(server) as channel:
        rank = channel.unary_unary(RANK)
        for _ in range(1000):
            body = bytearray(BODY)
            for _ in range(chance.randint(1, 4)):
                body[chance.randrange(len(body))] = chance.randrange(256)
            call: Any = rank.future(bytes(body), timeout=PATIENCE)
            seen.add(call.code())
        assert rank(BODY, timeout=PATIENCE)
    assert seen <= allowed
    assert grpc.StatusCode.INVALID_ARGUMENT in seen


def test_a_new_version_is_swapped_in_and_no_call_fails(client: RankingClient, tmp_path: Path) -> None:
    publish_tiny(tmp_path / "store", tmp_path / "second", seed=1)
    wait_until(lambda: client.rank(1, [100]).version == 2)


def test_a_client_of_several_addresses_is_answered(server: RunningServer, settings: ServerSettings) -> None:
    with (
        start(settings) as other,
        RankingClient(f"ipv4:127.0.0.1:{server.port},127.0.0.1:{other.port}", attempts=1, seconds=PATIENCE) as client,
    ):
        for _ in range(4):
            assert client.rank(1, [100]).version == 1


def test_two_servers_do_not_share_a_port(server: RunningServer, settings: ServerSettings) -> None:
    with pytest.raises(UnavailableError, match="--port"):
        start(settings.model_copy(update={"port": server.port}))


def test_what_the_front_cannot_do_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no TLS and no connection age"):
        ServerSettings(store=tmp_path, front="native", connection_age_seconds=60)
    with pytest.raises(ValidationError, match="no TLS and no connection age"):
        ServerSettings(store=tmp_path, front="native", tls_certificate=tmp_path / "a", tls_key=tmp_path / "b")


def test_without_the_extra_the_server_says_what_to_install(store: Path) -> None:
    code = "import sys; sys.modules['pygrpc_native'] = None; from serving.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, str(store), "--port", "0", "--front", "native"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ended.returncode != 0
    assert "pip install 'moerank[native]'" in ended.stderr
    assert "Traceback" not in ended.stderr
