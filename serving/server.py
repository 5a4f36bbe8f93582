"""The gRPC server: ranking, health and reflection on one port; new versions swapped in; a graceful end."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from features.errors import UnavailableError
from serving.choices import Choice
from serving.model import EngineOptions
from serving.registry import Registry
from serving.service import Limits, RankingService
from serving.settings import ServerSettings
from serving.transport import generic_handler
from serving.watcher import Watcher

LOG = logging.getLogger("moerank.server")
SERVING = health_pb2.HealthCheckResponse.SERVING


class RunningServer:
    """A started server; also a context manager that stops it."""

    def __init__(self, settings: ServerSettings) -> None:
        """Load the models and start to answer; see `start`."""
        self.settings = settings
        self.registry = Registry(
            settings.store,
            [Choice.parse(text) for text in settings.models],
            EngineOptions(device=settings.device, require_gpu=settings.require_gpu),
            settings.score,
        )
        self._health = health.HealthServicer()
        self._server = _build(settings, self.registry, self._health)
        self.port = _bind(self._server, settings)
        self._watcher = Watcher(self.registry, settings.poll_seconds)
        self._server.start()
        self._watcher.start()
        for service in ("", RankingService.name):
            self._health.set(service, SERVING)

    def stop(self, drain_seconds: float = 0.0, grace_seconds: float = 20.0) -> None:
        """Say NOT_SERVING, go on for the drain time, then let calls under way end within the grace time."""
        self._health.enter_graceful_shutdown()
        time.sleep(drain_seconds)
        self._watcher.stop()
        self._server.stop(grace_seconds).wait()

    def __enter__(self) -> Self:
        """The running server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


def start(settings: ServerSettings) -> RunningServer:
    """Start a server and return at once; it answers from then on.

    Raises:
        MoerankError: a model cannot be loaded (see `Registry`), or the address cannot be bound.
    """
    return RunningServer(settings)


def serve(settings: ServerSettings, ready: Callable[[RunningServer], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; to be called from the main thread.

    `ready` is told when the server answers.

    Raises:
        MoerankError: as `start`.
    """
    ended = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        LOG.info("got %s, draining", signal.Signals(number).name)
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        running = start(settings)
        LOG.info("serving %d models on %s:%d", len(running.registry.models()), settings.host, running.port)
        if ready is not None:
            ready(running)
        ended.wait()
        running.stop(settings.drain_seconds, settings.grace_seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _build(settings: ServerSettings, registry: Registry, servicer: health.HealthServicer) -> grpc.Server:
    pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="moerank")
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share connections, and so hide that the first is still there.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(pool, options=options)
    ranking = RankingService(registry, Limits(settings.max_candidates, settings.max_users))
    server.add_generic_rpc_handlers((generic_handler(ranking),))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if settings.reflection:
        names = (RankingService.name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server


def _bind(server: grpc.Server, settings: ServerSettings) -> int:
    try:
        return server.add_insecure_port(settings.target)
    except RuntimeError as error:
        message = f"cannot listen on {settings.target}; another process may use the port, so choose one with --port"
        raise UnavailableError(message) from error
