"""The gRPC server: ranking, health and reflection on one port; new versions swapped in; a graceful end."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from contract.errors import ConfigError
from serving.api.degradation import Degradation
from serving.api.open_inference import InferenceService
from serving.api.rank_service import Limits, RankingService
from serving.graph.engine import CUDA
from serving.graph.model_graphs import EngineOptions
from serving.graph.pushed_features import PushedReader
from serving.graph.users import UserStore
from serving.grpc_server.admission import Admission
from serving.grpc_server.health_and_reflection import Health, Reflection
from serving.grpc_server.listener import FLUSH_SECONDS, GrpcListener, Listener
from serving.grpc_server.process_group import serve_processes
from serving.grpc_server.security import Tokens
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.thread_scheduling import compute_bound
from serving.grpc_server.unary_handlers import Service, unary_handlers_of
from serving.observe.logs import configure
from serving.observe.metrics_page import MetricsServer
from serving.observe.request_log import RequestLog
from serving.observe.server_metrics import ServerCollector
from serving.observe.telemetry import Telemetry
from serving.observe.tracing import Tracing
from serving.registry.registry import Registry
from serving.registry.shadow import Shadows
from serving.registry.watcher import Watcher
from serving.store.model_selection import ModelSelection
from serving.store.model_source import open_source

LOG = logging.getLogger("moerank.server")


class RunningServer:
    """A started server; also a context manager that stops it."""

    def __init__(self, settings: ServerSettings) -> None:
        """Load the models and start to answer; see `start`."""
        self.settings = settings
        for text in settings.without_effect():
            LOG.warning(text)
        users = settings.user_store
        self.users: UserStore | None = None
        if users is not None:
            kept: dict[str, Any] = {"keep_seconds": settings.user_keep_seconds, "keep_users": settings.user_keep_most}
            self.users = UserStore(users, settings.user_store_seconds, **kept)
        self.pushed = None
        if self.users is not None:
            self.pushed = PushedReader(self.users, settings.pushed, settings.push_max_age_seconds)
        self.registry = Registry(
            open_source(settings.store, settings.cache),
            [ModelSelection.parse(text) for text in settings.models],
            EngineOptions(
                device=settings.device,
                require_gpu=settings.require_gpu,
                precision=settings.cuda_precision,
                queue_seconds=settings.cuda_queue_ms / 1000,
                tables=settings.cuda_tables,
                capture=settings.cuda_graphs,
                users=self.users,
                pushed=self.pushed,
                cascade=settings.cascade,
                fewer_experts=settings.fewer_experts,
            ),
            settings.score,
            settings.traffic,
        )
        on_card = any(CUDA in model.engine.providers for model in self.registry.models())
        if not on_card and (text := settings.without_a_card()):
            LOG.warning(text)
        self.telemetry = Telemetry()
        with ExitStack() as parts:
            if self.users is not None:
                parts.callback(self.users.close)
            self._pool = CountingPool(settings.threads)
            parts.callback(self._pool.shutdown)
            self.shadows = Shadows()
            parts.callback(self.shadows.close)
            self.log = (
                None if settings.log is None else RequestLog(settings.log, settings.log_share, settings.log_seconds)
            )
            if self.log is not None:
                parts.callback(self.log.close)
            degradation = Degradation(lambda: self._pool.pending / settings.admitted) if settings.degrade else None
            services = _services(settings, self.registry, self.telemetry, self.shadows, self.log, degradation)
            self._services = [service.name for service in services]
            self.health = Health()
            reflection = Reflection(self._services) if settings.reflection else None
            if reflection is not None:
                parts.callback(reflection.close)
            tokens = None if settings.token_file is None else Tokens(settings.token_file)
            admission = Admission(self._pool, settings.admitted, tokens, self.telemetry)
            methods = unary_handlers_of(services, self.telemetry, Tracing() if settings.traces else None)
            self._listener = _listener(settings)(settings, methods, self._pool, admission, self.health, reflection)
            self.port = self._listener.port
            self.collector = ServerCollector(
                self.telemetry,
                self.registry,
                lambda: self._pool.pending,
                self.shadows,
                self.users,
                self.pushed,
                self.log,
            )
            self.metrics = _metrics(settings, self.collector)
            if self.metrics is not None:
                parts.callback(self.metrics.stop)
            self._parts = parts.pop_all()
        self._watcher = Watcher(self.registry, settings.poll_seconds)
        self._listener.start()
        self._watcher.start()
        self.registry.changed = self._tell_health
        self._tell_health()

    def stop(self, drain_seconds: float = 0.0, grace_seconds: float = 20.0) -> None:
        """Say NOT_SERVING, go on for the drain time, then let calls under way end within the grace time."""
        self.health.drain()
        time.sleep(drain_seconds)
        self._watcher.stop()
        self._listener.refuse_new(grace_seconds)
        self._pool.wait_idle(grace_seconds)
        # Those who watch the health would keep the server for all of the grace time.
        self._listener.close(min(FLUSH_SECONDS, grace_seconds))
        self._parts.close()

    def _tell_health(self) -> None:
        """The server and its services serve while any model does; each model has a name of its own."""
        models = dict.fromkeys(self.registry.refused_models(), False)
        models |= {model.name: True for model in self.registry.models()}
        self.health.set({**dict.fromkeys(("", *self._services), any(models.values())), **models})

    def __enter__(self) -> Self:
        """The running server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(settings: ServerSettings) -> RunningServer:
    """Start a server and return at once; it answers from then on.

    Raises:
        MoerankError: a model cannot be loaded (see `Registry`), or the address cannot be bound.
    """
    return RunningServer(settings)


def serve(settings: ServerSettings, ready: Callable[[RunningServer], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; to be called from the main thread.

    `ready` is told when the server answers, unless there are several processes.

    Raises:
        MoerankError: as `start`.
    """
    configure(settings.log_format)
    if settings.processes > 1:
        with stop_signals() as wait:
            serve_processes(settings, wait)
        return
    compute_bound()
    running = start(settings)
    with stop_signals() as wait:
        names = ", ".join(sorted(model.name for model in running.registry.models())) or "no model"
        LOG.info("serving %s on %s:%d", names, settings.host, running.port)
        if ready is not None:
            ready(running)
        LOG.info("got %s, draining", wait().name)
        running.stop(settings.drain_seconds, settings.grace_seconds)


@contextmanager
def stop_signals() -> Iterator[Callable[[], signal.Signals]]:
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


def _services(
    settings: ServerSettings, registry: Registry, telemetry: Telemetry, shadows: Shadows, log: RequestLog | None,
    degradation: Degradation | None,
) -> tuple[Service, ...]:  # fmt: skip
    limits = Limits(settings.max_candidates, settings.max_users)
    return (
        RankingService(registry, telemetry, limits, shadows, log, degradation),
        InferenceService(registry, telemetry, limits, log, control=settings.model_control),
    )


def _grpc_listener(*parts: Any) -> GrpcListener:
    listener = GrpcListener(*parts)
    listener.take_port()
    return listener


def _listener(settings: ServerSettings) -> Callable[..., Listener]:
    """What makes the listener of a front."""
    if settings.front == "grpcio":
        return _grpc_listener
    try:
        from serving.grpc_server.native_front import NativeListener  # noqa: PLC0415 an extra
    except ImportError as error:
        message = "--front native needs the package pygrpc-native; install it with pip install 'moerank[native]'"
        raise ConfigError(message) from error
    return NativeListener


def _metrics(settings: ServerSettings, collector: ServerCollector) -> MetricsServer | None:
    if settings.metrics_port is None:
        return None
    return MetricsServer(collector, settings.host, settings.metrics_port)
