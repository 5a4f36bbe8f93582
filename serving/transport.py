"""Puts transport-free handlers on grpcio: admission, raw bytes, deadlines, request ids, errors as statuses."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc

from features.errors import MoerankError, OverloadedError
from serving.call import Call, Clock, Handler
from serving.pool import CountingPool
from serving.refusal import Refusals, refuse, request_id_of
from serving.status import PUBLIC
from serving.telemetry import Telemetry
from serving.tracing import Tracing

LOG = logging.getLogger("moerank.server")
FOREVER_SECONDS = 3e8
"""grpcio states the absence of a deadline as an enormous time."""


class Service(Protocol):
    """What a service offers to a transport."""

    @property
    def name(self) -> str:
        """The full name, such as ``moerank.v1.RankingService``."""

    def handlers(self) -> Mapping[str, Handler]:
        """Handlers by method name."""


class Front(grpc.GenericRpcHandler):  # type: ignore[type-arg] # subscripting it fails at run time
    """Routes calls to services; refuses at once what would wait too long."""

    def __init__(
        self,
        services: Sequence[Service],
        telemetry: Telemetry,
        pool: CountingPool,
        limit: int,
        refusals: Refusals,
        tracing: Tracing | None = None,
    ) -> None:
        """Admit calls while fewer than `limit` wait or run in the server's pool; with `tracing`, each has a span."""
        self._pool = pool
        self._limit = limit
        self._refusals = refusals
        self._methods = {
            f"/{service.name}/{method}": _Behaviour(
                method, handler if tracing is None else _traced(tracing, service.name, method, handler), telemetry, pool
            ).as_handler()
            for service in services
            for method, handler in service.handlers().items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Called by grpcio's own thread for each call, before any of the pool is taken."""
        handler = self._methods.get(handler_call_details.method)
        if handler is None or self._pool.pending < self._limit:
            return handler
        message = "the server has as much work as it can finish in time; try again later, or add replicas"
        return self._refusals.handler(OverloadedError(message))


class _Behaviour:
    """One method as grpcio calls it."""

    def __init__(self, method: str, handler: Handler, telemetry: Telemetry, pool: CountingPool) -> None:
        self._method = method
        self._handler = handler
        self._telemetry = telemetry
        self._pool = pool

    def as_handler(self) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """For grpcio, bytes in and out: a body that cannot be parsed is ours to refuse."""
        return grpc.unary_unary_rpc_method_handler(self)

    def __call__(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self._pool.received()
        metadata = dict(context.invocation_metadata() or ())
        call = Call(request_id_of(context), _expires(context), Clock(int(self._pool.waited() * 1e9)), metadata)
        try:
            call.require_time()
            return self._handler(body, call)
        except Exception as error:  # whatever it is, only what is made for callers may reach them
            self._telemetry.refused(error.reason if isinstance(error, MoerankError) else "DEFECT")
            if not isinstance(error, PUBLIC):
                extra = {"request_id": call.request_id, "method": self._method}
                LOG.exception("request %s to %s failed", call.request_id, self._method, extra=extra)
            refuse(context, error, call.request_id)


def _traced(tracing: Tracing, service: str, method: str, handler: Handler) -> Handler:
    def traced(body: bytes, call: Call) -> bytes:
        with tracing.call(service, method, call):
            return handler(body, call)

    return traced


def _expires(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None or remaining > FOREVER_SECONDS else time.monotonic() + remaining
