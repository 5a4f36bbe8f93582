"""Spans of calls, seen by a tracer that keeps what it is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from contract.errors import RequestError
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept(trace.NonRecordingSpan):
    """A span that keeps its name, parent, attributes and status."""

    def __init__(self, name: str, context: Any, attributes: dict[str, Any]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.name, self.attributes = name, dict(attributes)
        self.parent = trace.get_current_span(context).get_span_context()
        self.status: Any = None

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = (status, description)


class Keeper(trace.NoOpTracer):
    """A tracer that keeps its spans."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []

    @contextmanager
    def start_as_current_span(self, name: str, context: Any = None, **named: Any) -> Iterator[Kept]:  # type: ignore[override]
        self.spans.append(Kept(name, context, named["attributes"]))
        yield self.spans[-1]


def test_calls_are_spans_below_those_of_their_callers(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    monkeypatch.setattr(trace, "get_tracer", lambda _: keeper)
    with start(ServerSettings(store=store, port=0, traces=True)) as server:
        target = f"127.0.0.1:{server.port}"
        with RankingClient(
            target, metadata=[("traceparent", PARENT), ("x-request-id", "mine")], seconds=PATIENCE
        ) as client:
            client.rank(1, [100, 101])
            with pytest.raises(RequestError):
                client.rank(1, [100], {"planet": "mars"})
    good, bad = keeper.spans
    assert good.name == "moerank.v1.RankingService/Rank"
    assert f"{good.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert good.attributes["moerank.request_id"] == "mine"
    assert {f"moerank.{phase}_us" for phase in ("queue", "input", "infer", "output")} <= good.attributes.keys()
    assert good.status is None
    assert bad.status == (trace.StatusCode.ERROR, "REQUEST_INVALID")


def test_without_the_option_there_are_no_spans(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    monkeypatch.setattr(trace, "get_tracer", lambda _: keeper)
    with (
        start(ServerSettings(store=store, port=0)) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        client.rank(1, [100])
    assert keeper.spans == []
