"""How much of the model a call still gets: less the longer it has waited, before it would be refused."""

import time
from collections.abc import Callable

from serving.graph.context import CallContext
from serving.graph.stages import FALLBACK_STAGE, FEWER_STAGE

FEWER_FROM, FALLBACK_FROM = 0.25, 0.5
"""Shares of a call's deadline that are gone."""
BUSY_FROM = 0.5
"""The share of all calls that the server admits, from which on it takes fewer experts per row."""


class Degradation:
    """Chooses by a call's deadline, and by how many calls wait or run."""

    def __init__(self, busy: Callable[[], float]) -> None:
        """`busy` tells which share of the calls that the server admits wait or run."""
        self._busy = busy

    def stage(self, call: CallContext) -> str:
        """``fallback``, ``fewer experts``, or nothing for the whole model."""
        gone = share_gone(call)
        if gone >= FALLBACK_FROM:
            return FALLBACK_STAGE
        return FEWER_STAGE if gone >= FEWER_FROM or self._busy() >= BUSY_FROM else ""


def share_gone(call: CallContext) -> float:
    """Which share of a call's time is over, the wait for a thread included; 0 without a deadline."""
    if call.expires is None:
        return 0.0
    elapsed = sum(call.clock.total.values()) * 1e-9
    left = max(call.expires - time.monotonic(), 0.0)
    return elapsed / (elapsed + left) if elapsed else 0.0
