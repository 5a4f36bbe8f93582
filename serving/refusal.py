"""Calls that end before they take any of the pool that answers calls."""

import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from features.errors import MoerankError
from serving.status import status_of
from serving.telemetry import Telemetry

REQUEST_ID_HEADER = "x-request-id"


class Refusals:
    """Makes handlers that refuse, on a thread of their own."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Count what is refused."""
        self._telemetry = telemetry
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="moerank-refusals")

    def handler(self, error: MoerankError) -> Any:
        """A handler that ends the call with an error; being one of streams, it does not wait for the message."""
        self._telemetry.refused(error.reason)
        return grpc.stream_unary_rpc_method_handler(_Refusal(error, self._pool))

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False)


class _Refusal:
    """grpcio runs a behaviour with this attribute on that pool."""

    def __init__(self, error: MoerankError, pool: ThreadPoolExecutor) -> None:
        self._error = error
        self.experimental_thread_pool = pool

    def __call__(self, _: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        refuse(context, self._error, request_id_of(context))


def refuse(context: grpc.ServicerContext, error: Exception, request_id: str) -> NoReturn:
    """End a call; grpcio does that by raising an exception of its own."""
    context.abort_with_status(rpc_status.to_status(status_of(error, request_id)))


def request_id_of(context: grpc.ServicerContext) -> str:
    """The caller's own id if it is a harmless token, so that logs of both sides can be joined; or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_HEADER and isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            return value
    return secrets.token_hex(8)
