"""Puts transport-free handlers on grpcio: admission, raw bytes, deadlines, request ids, errors as statuses."""

import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Protocol

import grpc
from grpc_status import rpc_status

from features.errors import MoerankError, OverloadedError
from serving.call import Call, Clock, Handler
from serving.pool import CountingPool
from serving.status import PUBLIC, status_of
from serving.telemetry import Telemetry

LOG = logging.getLogger("moerank.server")
REQUEST_ID_HEADER = "x-request-id"
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
    """Routes calls to services; refuses at once, on a thread of its own, what would wait too long."""

    def __init__(self, services: Sequence[Service], telemetry: Telemetry, pool: CountingPool, limit: int) -> None:
        """Admit calls while fewer than `limit` wait or run in the server's pool."""
        self._pool = pool
        self._limit = limit
        self._telemetry = telemetry
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="moerank-refusals")
        self._methods = {
            f"/{service.name}/{method}": _Behaviour(method, handler, telemetry, pool).as_handler()
            for service in services
            for method, handler in service.handlers().items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Called by grpcio's own thread for each call, before any of the pool is taken."""
        handler = self._methods.get(handler_call_details.method)
        if handler is None or self._pool.pending < self._limit:
            return handler
        self._telemetry.refused(OverloadedError.reason)
        message = "the server has as much work as it can finish in time; try again later, or add replicas"
        # A handler of streams begins without waiting for the request to arrive.
        return grpc.stream_unary_rpc_method_handler(_Refusal(OverloadedError(message), self._refusals))

    def close(self) -> None:
        """End the thread of refusals."""
        self._refusals.shutdown(wait=False)


class _Refusal:
    """Answers a call with an error. grpcio runs a behaviour with this attribute on that pool."""

    def __init__(self, error: MoerankError, pool: ThreadPoolExecutor) -> None:
        self._error = error
        self.experimental_thread_pool = pool

    def __call__(self, _: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        _refuse(context, self._error, _request_id(context))


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
        call = Call(_request_id(context), _expires(context), Clock(int(self._pool.waited() * 1e9)))
        try:
            call.require_time()
            return self._handler(body, call)
        except Exception as error:
            self._telemetry.refused(error.reason if isinstance(error, MoerankError) else "DEFECT")
            if not isinstance(error, PUBLIC):
                extra = {"request_id": call.request_id, "method": self._method}
                LOG.exception("request %s to %s failed", call.request_id, self._method, extra=extra)
            _refuse(context, error, call.request_id)


def _refuse(context: grpc.ServicerContext, error: Exception, request_id: str) -> NoReturn:
    """End a call; grpcio does that by raising an exception of its own."""
    context.abort_with_status(rpc_status.to_status(status_of(error, request_id)))


def _request_id(context: grpc.ServicerContext) -> str:
    """The caller's own id if it is a harmless token, so that logs of both sides can be joined."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            return value
    return secrets.token_hex(8)


def _expires(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None or remaining > FOREVER_SECONDS else time.monotonic() + remaining
