"""A ranking server that ends calls as a test says, without any of ours."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import grpc

from tests.patience import PATIENCE


class Flaky:
    """A ranking server of grpcio's own that ends the first calls as it is told, and then answers."""

    def __init__(self, *ends: Callable[[grpc.ServicerContext], object]) -> None:
        self.ends, self.seen = list(ends), list[dict[str, Any]]()
        self._server = grpc.server(ThreadPoolExecutor(4))
        handlers = {"Rank": grpc.unary_unary_rpc_method_handler(self._rank)}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("moerank.v1.RankingService", handlers),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def _rank(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        self.seen.append({**metadata, "at": time.monotonic(), "peer": context.peer()})
        if self.ends:
            self.ends.pop(0)(context)
        return b""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0)


@contextmanager
def held() -> Iterator[Callable[[grpc.ServicerContext], object]]:
    """A first call that ends no earlier than the block."""
    over = threading.Event()
    yield lambda _: over.wait(PATIENCE)
    over.set()
