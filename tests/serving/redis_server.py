"""A redis-server of the tests' own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import redis

from tests.patience import wait_until
from tests.ports import free_port

SERVER = shutil.which("redis-server")


class Redis:
    """A redis-server of our own, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        assert SERVER is not None
        self.process = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL)
        with redis.Redis(port=self.port) as client:

            def is_up() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_until(is_up)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self) -> Any:
        """A connection of the redis library."""
        return redis.Redis(port=self.port)
