"""Ports for programs that have to be told one, because 0 would not say where they are to be found."""

import random
import socket
from pathlib import Path

KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, HIGHEST = 10_000, 32_768


def free_port() -> int:
    """A port that nobody listens at, below those that the kernel hands out.

    One that the kernel handed out would be free again until the program is there, and the next connection of any
    other test might get it.
    """
    highest = min(HIGHEST, int(KERNELS.read_text(encoding="ascii").split()[0])) if KERNELS.exists() else HIGHEST
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(LOWEST, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
