"""Several serving processes on one port, and their parent, which answers no calls itself.

The kernel spreads connections over the processes (SO_REUSEPORT). The parent starts a process again when one dies, has
all take a new version at the same time, adds up their metrics on one page, and ends them all when it is told to end;
should it be killed, they see its end and drain. Tables are mapped into memory, and so shared.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contract.errors import MoerankError, UnavailableError, raised_elsewhere
from serving.grpc_server.process_channel import Message, ProcessChannel
from serving.grpc_server.server_builder import taken
from serving.grpc_server.server_settings import ServerSettings
from serving.observe.metrics_page import MetricsServer
from serving.observe.summed_metrics import SummedMetrics

LOG = logging.getLogger("moerank.processes")
LOOK_SECONDS = 0.1
"""How often the parent looks after its processes."""
SWAP_SECONDS = 30.0
"""How long a version waits for processes that have not loaded it; they take it when they have."""
PAGE_SECONDS = 2.0
"""How long a process may take to tell its metrics."""
QUICK_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 30.0
"""A process that lived for less is started again after a pause, which doubles up to the longest."""
SPARE_SECONDS = 10.0
"""Beyond drain and grace time, before a process that does not end is killed."""


@dataclass
class _Worker:
    """A process, and what it has told."""

    process: "subprocess.Popen[bytes]"
    channel: ProcessChannel
    started: float
    ready: threading.Event = field(default_factory=threading.Event)
    failure: MoerankError | None = None
    page: str = ""
    page_number: int = 0

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class ProcessGroup(Collector):
    """The parent of so many processes as the settings say; also a context manager that ends them."""

    def __init__(self, settings: ServerSettings) -> None:
        """Start all, and wait until they answer.

        Raises:
            MoerankError: what the first process that could not start says; no process is left.
        """
        self._reserved = _reserve(settings)
        self.port = int(self._reserved.getsockname()[1])
        self._settings = settings.model_copy(update={"port": self.port, "metrics_port": None})
        self._sums, self._told = SummedMetrics(), threading.Condition()
        self._swaps: dict[tuple[str, int], tuple[float, set[int]]] = {}
        self._stopping = threading.Event()
        self._pause, self.restarts, self._number = 0.0, 0, 0
        self._lock = threading.RLock()
        self._workers: list[_Worker] = []
        self.metrics: MetricsServer | None = None
        try:
            for place in range(settings.processes):
                self._workers.append(self._start(place))
            for worker in self._workers:
                self._await(worker)
            if settings.metrics_port is not None:
                self.metrics = MetricsServer(self, settings.host, settings.metrics_port, own_process=False)
        except BaseException:
            self.stop()
            raise
        self._watch = threading.Thread(target=self._look_after, name="moerank-parent", daemon=True)
        self._watch.start()

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        return [worker.process.pid for worker in self._workers if worker.alive]

    def collect(self) -> Iterable[Metric]:
        """All metrics, added up; called when they are scraped."""
        with self._lock:
            workers = [worker for worker in self._workers if worker.alive]
        self._ask_pages(workers)
        yield from self._sums.families([worker.page for worker in workers if worker.page])
        yield GaugeMetricFamily("moerank_processes", "Processes that serve", value=len(workers))
        yield CounterMetricFamily("moerank_process_restarts", "Processes that were started again", value=self.restarts)

    def stop(self) -> None:
        """Have all processes drain at the same time, and wait for them; one that does not end is killed."""
        self._stopping.set()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            if worker.alive:
                worker.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + self._settings.drain_seconds + self._settings.grace_seconds + SPARE_SECONDS
        for worker in workers:
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.error("process %d did not end in time and is killed", worker.process.pid)  # noqa: TRY400 no defect
                worker.process.kill()
                worker.process.wait()
            worker.channel.close()
        if self.metrics is not None:
            self.metrics.stop()
        self._reserved.close()

    def __enter__(self) -> Self:
        """The running group itself."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, place: int) -> _Worker:
        own, given = socket.socketpair()
        command = [sys.executable, "-m", "serving.grpc_server.worker", str(given.fileno())]
        with given:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[given.fileno()])
        worker = _Worker(process, ProcessChannel(own), time.monotonic())
        told: Message = {"settings": self._settings.model_dump(mode="json")}
        if self._settings.pin_cores:
            told["cores"] = cores_of(place, self._settings.processes, sorted(os.sched_getaffinity(0)))
        worker.channel.send(told)
        threading.Thread(target=self._listen, args=(worker,), name="moerank-listener", daemon=True).start()
        return worker

    def _await(self, worker: _Worker) -> None:
        while not worker.ready.wait(LOOK_SECONDS) and worker.alive:
            pass
        # What it said last may still be on its way.
        if worker.ready.wait(LOOK_SECONDS) and worker.failure is None:
            return
        message = f"a serving process ended at its start with code {worker.process.wait()}; its log says why"
        raise worker.failure or UnavailableError(message)

    def _listen(self, worker: _Worker) -> None:
        for message in worker.channel.messages():
            if "ready" in message:
                worker.ready.set()
            elif "failed" in message:
                worker.failure = raised_elsewhere(message["reason"], message["failed"], UnavailableError)
                worker.ready.set()
            elif "loaded" in message:
                self._loaded(worker, *message["loaded"])
            elif "page" in message:
                with self._told:
                    worker.page, worker.page_number = message["page"], message["metrics"]
                    self._told.notify_all()

    def _ask_pages(self, workers: list[_Worker]) -> None:
        with self._told:
            self._number += 1
            number = self._number
        reached = [worker for worker in workers if worker.channel.send({"metrics": number})]
        with self._told:
            self._told.wait_for(lambda: all(w.page_number >= number or not w.alive for w in reached), PAGE_SECONDS)

    def _loaded(self, worker: _Worker, model: str, version: int) -> None:
        with self._lock:
            _, pids = self._swaps.setdefault((model, version), (time.monotonic(), set()))
            pids.add(worker.process.pid)
        self._agree()

    def _agree(self) -> None:
        """Let go what all processes have loaded, or what has waited long enough."""
        with self._lock:
            living = {worker.process.pid for worker in self._workers if worker.alive and worker.ready.is_set()}
            for swap, (since, pids) in list(self._swaps.items()):
                if living <= pids or time.monotonic() - since > SWAP_SECONDS:
                    del self._swaps[swap]
                    for worker in self._workers:
                        worker.channel.send({"swap": list(swap)})

    def _look_after(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self._agree()
            for place, worker in enumerate(self._workers):
                if not worker.alive and not self._stopping.is_set():
                    self._replace(place, worker)

    def _replace(self, place: int, worker: _Worker) -> None:
        code, lived = worker.process.returncode, time.monotonic() - worker.started
        self._pause = 0.0 if lived > QUICK_SECONDS else min(LONGEST_PAUSE_SECONDS, max(0.5, 2 * self._pause))
        LOG.error("process %d ended with code %s; another one starts", worker.process.pid, code)
        worker.channel.close()
        if self._stopping.wait(self._pause):
            return
        with self._lock:
            if self._stopping.is_set():
                return
            self._sums.retire(worker.page)
            self._workers[place] = self._start(place)
            self.restarts += 1


def cores_of(place: int, processes: int, cores: Sequence[int]) -> list[int]:
    """The cores that a process keeps to: its share of them, or one that others keep to as well where they are few.

    >>> [cores_of(place, 2, [0, 1, 2, 3, 4]) for place in range(2)], cores_of(2, 3, [0, 1])
    ([[0, 1], [2, 3, 4]], [0])
    """
    if processes > len(cores):
        return [cores[place % len(cores)]]
    return list(cores[place * len(cores) // processes : (place + 1) * len(cores) // processes])


def serve_processes(
    settings: ServerSettings, wait: Callable[[], signal.Signals], ready: Callable[[ProcessGroup], None] | None = None
) -> None:
    """Serve with several processes until `wait` returns, then drain all.

    Raises:
        MoerankError: as `ProcessGroup`.
    """
    with ProcessGroup(settings) as group:
        LOG.info("serving with %d processes on %s:%d", settings.processes, settings.host, group.port)
        if ready is not None:
            ready(group)
        LOG.info("got %s, draining", wait().name)


def _reserve(settings: ServerSettings) -> socket.socket:
    """Hold the port without listening, so that the processes may share it and nobody else takes it.

    Raises:
        UnavailableError: it is taken already, also by a server that would share it.
    """
    try:
        addresses = socket.getaddrinfo(settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM)
        kind, *_, address = addresses[0]
        with socket.socket(kind, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)
            address = alone.getsockname()
        shared = socket.socket(kind, socket.SOCK_STREAM)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(address)
    except OSError as error:
        raise taken(settings) from error
    return shared
