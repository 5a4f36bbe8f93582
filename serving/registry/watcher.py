"""Watches the store, so that what is published is served soon after."""

import logging
import threading

from serving.registry.registry import Registry

LOG = logging.getLogger("moerank.registry")


class Watcher:
    """A thread that refreshes a registry until it is stopped."""

    def __init__(self, registry: Registry, seconds: float) -> None:
        """Prepare; `start` begins."""
        self._registry = registry
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moerank-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after a load that may be under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._registry.refresh()
            except Exception:
                # A defect in loading must not end the watch: the server would silently serve an old model for ever.
                LOG.exception("watching the store failed; everything goes on as it was")
