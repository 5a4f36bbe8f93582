"""Serves the metrics page: made at most once a second, however many scrape it."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import ThreadingWSGIServer, _SilentHandler, choose_encoder
from prometheus_client.registry import Collector

from contract.errors import UnavailableError

PAGE_SECONDS = 1.0
"""How old the page may be: making it holds the interpreter, and so costs rankings."""

SILENT_SECONDS = 10.0
"""How long a scraper may take to say what it wants."""


class MetricsPage:
    """A WSGI application with one page, kept by format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Show what a registry collects."""
        self._registry = registry
        self._lock = threading.Lock()
        self._pages: dict[str, tuple[float, bytes]] = {}
        self.made = 0
        """How often a page was made."""

    def __call__(self, environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer any path, as Prometheus's own server does."""
        encode, kind = choose_encoder(environment.get("HTTP_ACCEPT", ""))
        page = self._page(encode, kind)
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(page)))])
        return [page]

    def _page(self, encode: Any, kind: str) -> bytes:
        with self._lock:
            made, page = self._pages.get(kind, (float("-inf"), b""))
            if time.monotonic() - made >= PAGE_SECONDS:
                page = encode(self._registry)
                self._pages[kind] = (time.monotonic(), page)
                self.made += 1
            return page


class _Server(ThreadingWSGIServer):
    """As Prometheus's own, for more scrapers that come at once."""

    request_queue_size = 64


class _Handler(_SilentHandler):
    """Leaves those who say nothing, each of whom holds a thread and a descriptor; who left is not an error."""

    timeout = SILENT_SECONDS

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()


class MetricsServer:
    """Offers ``/metrics`` on a port of its own."""

    def __init__(self, collector: Collector, host: str, port: int, *, own_process: bool = True) -> None:
        """Start to answer scrapes, with figures of this process beside the collector's if it is its `own_process`.

        Raises:
            UnavailableError: the port cannot be bound.
        """
        registry = CollectorRegistry()
        registry.register(collector)
        PlatformCollector(registry=registry)
        if own_process:
            ProcessCollector(registry=registry)
            GCCollector(registry=registry)
        self.page = MetricsPage(registry)
        try:
            self._server: WSGIServer = make_server(host, port, self.page, _Server, _Handler)
        except OSError as error:
            message = f"cannot listen on {host}:{port} for metrics ({error.strerror}); choose another --metrics-port"
            raise UnavailableError(message) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="moerank-metrics", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def stop(self) -> None:
        """Stop to answer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
