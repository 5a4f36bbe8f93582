"""Limits on connections for a front that has none: how many there are, and how long one may say nothing.

The front asks the client of a connection with open calls every few seconds whether it lives, and that of another never
(`ping_seconds`). So a connection that has been silent for longer has no call open, neither a ranking nor a Health
Watch, and may be closed. It is told so in HTTP/2's words first (GOAWAY, RFC 9113, 6.8), so that clients leave it
without losing a call.
"""

import logging
import socket
import struct
import threading
import time
from collections.abc import Sequence

from serving.grpc_server.accepted_sockets import Accepted, AcceptedSockets, descriptors

LOG = logging.getLogger("moerank.server")
LOOK_SECONDS = 0.25
"""How often the number of connections is looked at, and so how long there may be too many."""
IDLE_LOOK_SECONDS = 5.0
"""How often, at the least often, idle ones are looked for."""
MOST_OF_A_CORE = 0.1
"""What looks may cost: with ten thousands of connections at their limit, four a second would cost more than a core."""
LEAST_PING_SECONDS = 0.01
MOST_PING_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
"""How long a connection may take to say what it speaks, as through grpcio."""
HANDSHAKE_BYTES = 24 + 9
"""HTTP/2's preface and the head of the settings that must follow it."""
WARN_SECONDS = 60.0
_NO_LAST_STREAM, _NO_ERROR = 2**31 - 1, 0
GO_AWAY = (8).to_bytes(3) + bytes([7, 0]) + bytes(4) + struct.pack(">II", _NO_LAST_STREAM, _NO_ERROR)
"""A frame of 8 bytes, type 7, without flags, of stream 0: open no more calls here; those that are open go on."""


def ping_seconds(idle_seconds: float) -> float:
    """How often the front must ask on connections with calls, so that none of them counts as idle."""
    return max(LEAST_PING_SECONDS, min(MOST_PING_SECONDS, idle_seconds / 3)) if idle_seconds else MOST_PING_SECONDS


class ConnectionLimits:
    """Closes connections of a port that never speak, that are idle, or that are too many."""

    def __init__(self, port: int, most: int, idle_seconds: float) -> None:
        """Hold connections to `port` to at most `most`, and to `idle_seconds` without a call (0: for ever)."""
        self._sockets = AcceptedSockets(port)
        self._most, self._idle = most, idle_seconds
        self._without_calls = 2 * ping_seconds(idle_seconds)
        """One that was silent for so long has no call open."""
        self._look = (
            min(IDLE_LOOK_SECONDS, max(LEAST_PING_SECONDS, idle_seconds / 4)) if idle_seconds else IDLE_LOOK_SECONDS
        )
        self._looked = self._warned = float("-inf")
        self._leaving: set[int] = set()
        """Those that were told to go."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moerank-connections", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sockets.close()

    def _run(self) -> None:
        pause = least = min(LOOK_SECONDS, self._look)
        while not self._ended.wait(pause):
            began = time.thread_time()
            try:
                self._turn(time.monotonic())
            except Exception:  # the next look may go better, and nobody else looks
                LOG.exception("the connections could not be looked at")
            pause = max(least, (time.thread_time() - began) / MOST_OF_A_CORE)

    def _turn(self, now: float) -> None:
        # Counting descriptors costs little, and there are no more connections than those.
        if now < self._looked + self._look and sum(1 for _ in descriptors()) <= self._most:
            return
        self._looked = now
        connections = self._sockets.look()
        late = [each for each in connections if _unspoken(each) and now - each.since > HANDSHAKE_SECONDS]
        rest = _without(connections, late)
        surplus = self._surplus(rest)
        for each in (*late, *surplus):
            self._shut(each)
        if self._idle:
            self._close_idle(_without(rest, surplus))

    def _surplus(self, connections: Sequence[Accepted]) -> list[Accepted]:
        """Those beyond the number that is allowed; whoever has calls open goes last, the newest first."""
        over = len(connections) - self._most
        if over <= 0:
            return []
        if time.monotonic() > self._warned + WARN_SECONDS:
            self._warned = time.monotonic()
            LOG.warning("%d connections are open and --max-connections allows %d; some are closed", len(connections),
                        self._most)  # fmt: skip
        return sorted(connections, key=self._expendable)[:over]

    def _expendable(self, connection: Accepted) -> tuple[int, float]:
        if _unspoken(connection):
            return 0, connection.since
        if connection.silent > self._without_calls:
            return 1, -connection.silent
        return 2, -connection.since

    def _close_idle(self, connections: Sequence[Accepted]) -> None:
        for each in connections:
            if each.inode in self._leaving and each.silent > self._without_calls:
                self._shut(each)
            elif each.silent > self._idle:
                self._leaving.add(each.inode)
                self._tell(each)
        self._leaving &= {each.inode for each in connections}

    def _tell(self, connection: Accepted) -> None:
        """Ask the client to go; nothing else is being sent on a connection that has been silent for long."""
        self._sockets.act(connection, _say_go_away)

    def _shut(self, connection: Accepted) -> None:
        """End it; the front sees that and closes its descriptor."""
        if connection.silent > self._without_calls and not _unspoken(connection):
            self._tell(connection)
        self._sockets.act(connection, lambda pinned: pinned.shutdown(socket.SHUT_RDWR))


def _say_go_away(pinned: socket.socket) -> None:
    pinned.send(GO_AWAY, socket.MSG_DONTWAIT)


def _without(connections: Sequence[Accepted], others: Sequence[Accepted]) -> list[Accepted]:
    inodes = {each.inode for each in others}
    return [each for each in connections if each.inode not in inodes]


def _unspoken(connection: Accepted) -> bool:
    return connection.bytes_received < HANDSHAKE_BYTES
