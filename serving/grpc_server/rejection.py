"""Calls that end before they take any of the pool that answers calls."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from contract.errors import MoerankError
from serving.api.status import status_of
from serving.grpc_server.unary_handlers import request_id_of
from serving.observe.telemetry import Telemetry


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
        end(context, status_of(self._error, request_id_of(context.invocation_metadata() or ())))


def end(context: grpc.ServicerContext, status: status_pb2.Status) -> NoReturn:
    """End a call; grpcio does that by raising an exception of its own."""
    context.abort_with_status(rpc_status.to_status(status))
