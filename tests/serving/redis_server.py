"""A redis-server of the tests' own."""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

SERVER = shutil.which("redis-server")


class Redis:
    """A redis-server of our own, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        assert SERVER is not None
        self.process = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < until
                    time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self) -> Any:
        """A connection of the redis library."""
        return redis.Redis(port=self.port)
