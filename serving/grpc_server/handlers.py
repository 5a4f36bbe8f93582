"""Puts methods on grpcio: admission, raw bytes, deadlines, errors as statuses."""

import time
from collections.abc import Mapping
from typing import Any

import grpc

from contract.errors import OverloadedError
from serving.graph.context import CallContext, Clock
from serving.grpc_server.rejection import Refusals, end
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import UnaryHandler, request_id_of

FOREVER_SECONDS = 3e8
"""grpcio states the absence of a deadline as an enormous time."""


class Front(grpc.GenericRpcHandler):  # type: ignore[type-arg] # subscripting it fails at run time
    """Routes calls to methods; refuses at once what would wait too long."""

    def __init__(self, methods: Mapping[str, UnaryHandler], pool: CountingPool, limit: int, refusals: Refusals) -> None:
        """Admit calls while fewer than `limit` wait or run in the server's pool."""
        self._pool = pool
        self._limit = limit
        self._refusals = refusals
        self._handlers = {path: _Behaviour(method, pool).as_handler() for path, method in methods.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Called by grpcio's own thread for each call, before any of the pool is taken."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is None or self._pool.pending < self._limit:
            return handler
        return self._refusals.handler(OverloadedError(OVERLOADED))


OVERLOADED = "the server has as much work as it can finish in time; try again later, or add replicas"


class _Behaviour:
    """One method as grpcio calls it."""

    def __init__(self, method: UnaryHandler, pool: CountingPool) -> None:
        self._method = method
        self._pool = pool

    def as_handler(self) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """For grpcio, bytes in and out: a body that cannot be parsed is ours to refuse."""
        return grpc.unary_unary_rpc_method_handler(self)

    def __call__(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self._pool.received()
        metadata = dict(context.invocation_metadata() or ())
        clock = Clock(int(self._pool.waited() * 1e9))
        answer = self._method(body, CallContext(request_id_of(metadata.items()), _expires(context), clock, metadata))
        if not isinstance(answer, bytes):
            end(context, answer)
        return answer


def _expires(context: grpc.ServicerContext) -> float | None:
    remaining = context.time_remaining()
    return None if remaining is None or remaining > FOREVER_SECONDS else time.monotonic() + remaining
