"""JSON lines over a socket between the parent of several serving processes and each of them."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

Message = dict[str, Any]


class ProcessChannel:
    """One end; any thread may send, one reads. When the other process is gone, reading ends and sending says so."""

    def __init__(self, end: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> bool:
        """Send a message; whether the other end is there."""
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError:
            return False
        return True

    def messages(self) -> Iterator[Message]:
        """What the other end sends, until it is gone."""
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
