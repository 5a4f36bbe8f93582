"""What Linux knows of the connections that this process accepted on a port, whoever in the process holds them.

A front in another language keeps its sockets to itself, but descriptors belong to the process: each names a socket, and
TCP_INFO (linux/tcp.h) says how long it has been silent. Descriptors are reused at once when they are closed, so a
socket is told by its inode, and is pinned by a duplicate before anything is done to it.
"""

import errno
import os
import resource
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_ESTABLISHED = 1
_TIMES_AND_SIZE = struct.Struct("=44xI4xI72xQ")
"""Of tcp_info the milliseconds since data was sent and since data was received, and the bytes received."""
_INFO_BYTES = _TIMES_AND_SIZE.size
_OWN_DESCRIPTORS = "/proc/self/fd"
SUPPORTED = hasattr(socket, "TCP_INFO") and Path(_OWN_DESCRIPTORS).is_dir()
"""Whether this system tells."""


@dataclass(frozen=True)
class Accepted:
    """A connection as of one look."""

    descriptor: int
    inode: int
    since: float
    """When it was first seen, on the clock of `time.monotonic`."""
    silent: float
    """Seconds in which no data came or went."""
    bytes_received: int


class AcceptedSockets:
    """Finds the connections of a port. It works without a free descriptor, for then it is needed most.

    Example:
        >>> listening = socket.create_server(("127.0.0.1", 0))
        >>> sockets = AcceptedSockets(listening.getsockname()[1])
        >>> caller = socket.create_connection(listening.getsockname())
        >>> accepted, _ = listening.accept()
        >>> [found.bytes_received for found in sockets.look()]
        [0]
        >>> for each in (sockets, caller, accepted, listening):
        ...     each.close()
    """

    def __init__(self, port: int) -> None:
        """Prepare to look for connections to `port`."""
        self._port = port
        self._since: dict[int, float] = {}
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._pin = os.dup(self._nothing)

    def look(self) -> list[Accepted]:
        """All connections that are established now."""
        found = [accepted for number in descriptors() if (accepted := self._accepted(number)) is not None]
        self._since = {accepted.inode: accepted.since for accepted in found}
        return found

    def act(self, accepted: Accepted, action: Callable[[socket.socket], object]) -> None:
        """Do something to the socket, which no other can replace meanwhile; nothing if it has gone."""
        try:
            os.dup2(accepted.descriptor, self._pin, inheritable=False)
            if os.fstat(self._pin).st_ino == accepted.inode:
                pinned = socket.socket(fileno=self._pin)
                try:
                    action(pinned)
                finally:
                    pinned.detach()
        except OSError:  # closed by either end in the meantime
            return
        finally:
            os.dup2(self._nothing, self._pin, inheritable=False)

    def close(self) -> None:
        """Give up the descriptors held for pinning."""
        os.close(self._pin)
        os.close(self._nothing)

    def _accepted(self, number: int) -> Accepted | None:
        try:
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                return None
            since = self._since.get(status.st_ino)
            # A socket object asks the kernel what it is, unless it is told.
            known = {} if since is None else {"family": socket.AF_INET, "type": socket.SOCK_STREAM, "proto": 0}
            borrowed = socket.socket(fileno=number, **known)
        except OSError:  # closed since it was listed
            return None
        try:
            if since is None and not self._is_ours(borrowed):
                return None
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return None
        finally:
            borrowed.detach()
        if len(info) < _INFO_BYTES or info[0] != _ESTABLISHED:
            return None
        sent, received, size = _TIMES_AND_SIZE.unpack_from(info)
        since = time.monotonic() if since is None else since
        return Accepted(number, status.st_ino, since, min(sent, received) / 1000, size)

    def _is_ours(self, candidate: socket.socket) -> bool:
        inet = candidate.family in (socket.AF_INET, socket.AF_INET6) and candidate.type is socket.SOCK_STREAM
        return inet and candidate.getsockname()[1] == self._port


def descriptors() -> Iterable[int]:
    """The numbers that this process has open; none where the system cannot say."""
    try:
        return [int(name) for name in os.listdir(_OWN_DESCRIPTORS)]  # noqa: PTH208 thousands of names, each a path object, ten times the cost
    except OSError as error:
        # Where no descriptor is left to list them with, all up to the limit are in use.
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) if error.errno == errno.EMFILE else ()
