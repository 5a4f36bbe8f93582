"""The gRPC server: ranking, health and reflection on one port; new versions swapped in; a graceful end."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import grpc

from features.errors import UnavailableError
from serving.aside import Aside
from serving.choices import Choice
from serving.inference import InferenceService
from serving.logs import configure
from serving.metrics import MetricsServer, ServerCollector
from serving.model import EngineOptions
from serving.pool import CountingPool
from serving.registry import Registry
from serving.service import Limits, RankingService
from serving.settings import ServerSettings
from serving.telemetry import Telemetry
from serving.transport import Front
from serving.watcher import Watcher

LOG = logging.getLogger("moerank.server")
FLUSH_SECONDS = 0.2


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
        self._pool = CountingPool(settings.threads)
        self.telemetry = Telemetry()
        limits = Limits(settings.max_candidates, settings.max_users)
        services = (
            RankingService(self.registry, self.telemetry, limits),
            InferenceService(self.registry, self.telemetry, limits, control=settings.model_control),
        )
        self._aside = Aside([service.name for service in services])
        self._front = Front(services, self.telemetry, self._pool, settings.threads + settings.max_queue)
        self._server = _build(settings, self._pool, self._front, self._aside)
        self.port = _bind(self._server, settings)
        collector = ServerCollector(self.telemetry, self.registry, self._pool)
        port = settings.metrics_port
        self.metrics = None if port is None else MetricsServer(collector, settings.host, port)
        self._watcher = Watcher(self.registry, settings.poll_seconds)
        self._server.start()
        self._watcher.start()
        self._aside.serving()

    def stop(self, drain_seconds: float = 0.0, grace_seconds: float = 20.0) -> None:
        """Say NOT_SERVING, go on for the drain time, then let calls under way end within the grace time."""
        self._aside.draining()
        time.sleep(drain_seconds)
        self._watcher.stop()
        self._server.stop(grace_seconds)
        self._pool.wait_idle(grace_seconds)
        # Those who watch the health would keep the server for all of the grace time; answers may still be on the wire.
        self._server.stop(min(FLUSH_SECONDS, grace_seconds)).wait()
        if self.metrics is not None:
            self.metrics.stop()
        self._front.close()
        self._aside.close()
        self._pool.shutdown()

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
    configure(settings.log_format)
    running = start(settings)
    with _signals() as wait:
        LOG.info("serving %d models on %s:%d", len(running.registry.models()), settings.host, running.port)
        if ready is not None:
            ready(running)
        LOG.info("got %s, draining", wait().name)
        running.stop(settings.drain_seconds, settings.grace_seconds)


@contextmanager
def _signals() -> Iterator[Callable[[], signal.Signals]]:
    """Gives a function that waits for SIGTERM or SIGINT; a second one does not disturb what follows.

    The kernel may hand a signal to any thread, such as one of grpcio's, which does not wake the main thread out of a
    wait. The wake-up descriptor does, whichever thread it was.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> signal.Signals:
        while True:
            number = os.read(reader, 1)[0]
            if number in before:
                return signal.Signals(number)

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _build(settings: ServerSettings, pool: CountingPool, front: Front, aside: Aside) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share connections, and so hide that the first is still there.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(pool, options=options)
    server.add_generic_rpc_handlers((front,))
    aside.add_to(server, describe=settings.reflection)
    return server


def _bind(server: grpc.Server, settings: ServerSettings) -> int:
    try:
        return server.add_insecure_port(settings.target)
    except RuntimeError as error:
        message = f"cannot listen on {settings.target}; another process may use the port, so choose one with --port"
        raise UnavailableError(message) from error
