"""Calls that are under way for as long as a test wants, however fast the machine is."""

import threading
from typing import Any

import pytest

from serving.grpc_server.server import RunningServer
from tests.patience import PATIENCE


class Held:
    """Holds calls inside the service until they are let go."""

    def __init__(self, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Event()
        self._choose = server.registry.choose
        monkeypatch.setattr(server.registry, "choose", self._wait)

    def _wait(self, model: str, version: int, key: str) -> Any:
        self.entered.release()
        self.go.wait(PATIENCE)
        return self._choose(model, version, key)
