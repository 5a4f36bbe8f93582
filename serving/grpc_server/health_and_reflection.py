"""Health and reflection on a thread pool of their own: neither waits for rankings, nor takes threads from them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

THREADS = 2


class Aside:
    """The two services beside the ranking; health is per service."""

    def __init__(self, services: Sequence[str]) -> None:
        """Speak for these services, not yet serving, and for the server as a whole (the empty name)."""
        self._services = tuple(services)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="moerank-aside")
        servicer: Any = health.HealthServicer()
        servicer.Check = _AsideBehaviour(servicer.Check, self._pool)
        servicer.Watch = _AsideBehaviour(servicer.Watch, self._pool, non_blocking=True)
        self._health = servicer

    def add_to(self, server: grpc.Server, *, describe: bool) -> None:
        """Register with a server that has not started; `describe` adds reflection."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if describe:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            servicer: Any = reflection.ReflectionServicer(names)
            servicer.ServerReflectionInfo = _AsideBehaviour(servicer.ServerReflectionInfo, self._pool)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)

    def serving(self) -> None:
        """Say SERVING."""
        for service in ("", *self._services):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def draining(self) -> None:
        """Say NOT_SERVING from now on."""
        self._health.enter_graceful_shutdown()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False)


class _AsideBehaviour:
    """A behaviour with the attributes by which grpcio picks its pool."""

    def __init__(self, function: Callable[..., Any], pool: ThreadPoolExecutor, *, non_blocking: bool = False) -> None:
        self._function = function
        self.experimental_thread_pool = pool
        self.experimental_non_blocking = non_blocking

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)
