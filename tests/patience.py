"""How long tests wait for what must happen: only against a hang, so that a busy machine fails none of them."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds. No test says how fast something is; what must not happen has limits of its own."""


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it has not become true.
    """
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            message = f"it has not happened in {PATIENCE:g} seconds"
            raise TimeoutError(message)
        time.sleep(0.01)
