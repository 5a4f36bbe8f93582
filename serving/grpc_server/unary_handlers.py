"""One method of a service, free of any transport: a handler behind its deadline, counters and a span."""

import itertools
import logging
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from google.rpc import status_pb2

from contract.errors import MoerankError
from serving.api.status import PUBLIC, status_of
from serving.graph.context import CallContext, Handler
from serving.observe.telemetry import Telemetry
from serving.observe.tracing import Tracing

LOG = logging.getLogger("moerank.server")
REQUEST_ID_HEADER = "x-request-id"
_PREFIX = secrets.token_hex(6)
_COUNT = itertools.count(1)


class Service(Protocol):
    """What a service offers to a transport."""

    @property
    def name(self) -> str:
        """The full name, such as ``moerank.v1.RankingService``."""

    def handlers(self) -> Mapping[str, Handler]:
        """Handlers by method name."""


class UnaryHandler:
    """Answers calls from bytes to bytes, or to the status with which the call is to end."""

    def __init__(self, name: str, handler: Handler, telemetry: Telemetry) -> None:
        """Count refusals in `telemetry`; the name is for the log."""
        self._name = name
        self._handler = handler
        self._telemetry = telemetry

    def __call__(self, body: bytes, call: CallContext) -> bytes | status_pb2.Status:
        """The answer, or what the caller is told of an error."""
        try:
            call.require_time()
            return self._handler(body, call)
        except Exception as error:  # whatever it is, only what is made for callers may reach them
            self._telemetry.refused(error.reason if isinstance(error, MoerankError) else "DEFECT")
            if not isinstance(error, PUBLIC):
                extra = {"request_id": call.request_id, "method": self._name}
                LOG.exception("request %s to %s failed", call.request_id, self._name, extra=extra)
            return status_of(error, call.request_id)


def unary_handlers_of(
    services: Sequence[Service], telemetry: Telemetry, tracing: Tracing | None
) -> dict[str, UnaryHandler]:
    """All methods by their path; with `tracing`, each call has a span."""
    return {
        f"/{service.name}/{name}": UnaryHandler(
            name, handler if tracing is None else _traced(tracing, service.name, name, handler), telemetry
        )
        for service in services
        for name, handler in service.handlers().items()
    }


def request_id_of(metadata: Iterable[tuple[str, Any]]) -> str:
    """The caller's own id if it is a harmless token, so that logs of both sides can be joined; or a new one."""
    for key, value in metadata:
        if key == REQUEST_ID_HEADER and isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            return value
    # Asking the system for chance each time costs more than all the rest of this.
    return f"{_PREFIX}{next(_COUNT):x}"


def _traced(tracing: Tracing, service: str, method: str, handler: Handler) -> Handler:
    def traced(body: bytes, call: CallContext) -> bytes:
        with tracing.call(service, method, call):
            return handler(body, call)

    return traced
