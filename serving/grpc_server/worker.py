"""One of several serving processes: ``python -m serving.grpc_server.worker DESCRIPTOR``, started by their parent alone.

It serves as a single process does, but for three things that it leaves to its parent: versions are swapped when the
parent says so, metrics are told to the parent, and when the parent is gone it drains and ends.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest

from contract.errors import MoerankError
from serving.grpc_server.process_channel import Message, ProcessChannel
from serving.grpc_server.server import RunningServer, start, stop_signals
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_scheduling import compute_bound
from serving.observe.logs import configure

AGREE_SECONDS = 60.0
"""How long a swap may wait for the parent's word before the process takes the version anyway."""


class SwapAgreement:
    """Holds a version back until all processes have loaded it."""

    def __init__(self, channel: ProcessChannel) -> None:
        """Ask over a channel."""
        self._channel = channel
        self._agreed: set[tuple[str, int]] = set()
        self._over = False
        self._changed = threading.Condition()

    def wait(self, model: str, version: int) -> None:
        """Tell that a version is loaded, and wait until all others have it too."""
        if not self._channel.send({"loaded": [model, version]}):
            return
        with self._changed:
            self._changed.wait_for(lambda: self._over or (model, version) in self._agreed, AGREE_SECONDS)
            self._agreed.discard((model, version))

    def agree(self, model: str, version: int) -> None:
        """All have it."""
        with self._changed:
            self._agreed.add((model, version))
            self._changed.notify_all()

    def end(self) -> None:
        """Hold nothing back any more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def main() -> int:
    """Serve until told to stop; the exit code is that of the error, or 0."""
    channel = ProcessChannel(socket.socket(fileno=int(sys.argv[1])))
    messages = channel.messages()
    told = next(messages)
    settings = ServerSettings.model_validate(told["settings"])
    if "cores" in told:
        # Threads that start later inherit them; libraries have started some at their import.
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it ended since it was listed
                os.sched_setaffinity(int(thread.name), told["cores"])
    configure(settings.log_format)
    compute_bound()
    # From now on: the parent, or a terminal, may want an end while models are being loaded.
    with stop_signals() as wait:
        try:
            running = start(settings)
        except MoerankError as error:
            channel.send({"failed": str(error), "reason": error.reason})
            return error.exit_code
        swaps = SwapAgreement(channel)
        running.registry.agree = swaps.wait
        page = _page_of(running)
        follow = threading.Thread(target=_follow, args=(channel, messages, swaps, page), daemon=True)
        follow.start()
        channel.send({"ready": running.port, "models": len(running.registry.models())})
        wait()
        swaps.end()
        running.stop(settings.drain_seconds, settings.grace_seconds)
    channel.close()
    return 0


def _page_of(running: RunningServer) -> Callable[[], str]:
    registry = CollectorRegistry()
    registry.register(running.collector)
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry).decode()


def _follow(
    channel: ProcessChannel, messages: Iterator[Message], swaps: SwapAgreement, page: Callable[[], str]
) -> None:
    for message in messages:
        if "swap" in message:
            swaps.agree(*message["swap"])
        elif "metrics" in message:
            channel.send({"metrics": message["metrics"], "page": page()})
    # The parent is gone, and with it whoever would end this process.
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
