"""What both clients do with one call, free of any way to wait: deadlines, attempts, pauses, named errors."""

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from serving.client.call_errors import FailedCall, error_of, retry_delay

REQUEST_ID = "x-request-id"
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CallOptions:
    """How one call is made, where that differs from the client's own.

    Example:
        >>> CallOptions(seconds=0.05, request_id="r-17", hedge_seconds=0.02).metadata
        ()
    """

    seconds: float | None = None
    """Deadline of the call, attempts included."""
    metadata: Metadata = ()
    """Sent beside the client's own."""
    request_id: str = ""
    """Names the call in the server's log and answer; the server makes one up otherwise."""
    hedge_seconds: float | None = None
    """Send the call once more, to whichever server is next, if no answer came by then; the first answer counts."""


@dataclass(frozen=True)
class Send:
    """Make an attempt with so much time."""

    seconds: float
    metadata: Metadata
    hedge_seconds: float | None


@dataclass(frozen=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


Step = Send | Pause


def attempts(
    target: str, most: int, seconds: float, metadata: Sequence[tuple[str, str]], options: CallOptions
) -> Generator[Step, Any, Any]:
    """Say what to do next, and take the outcome of each `Send`: the response, or the exception of grpcio.

    Returns:
        The response.

    Raises:
        MoerankError: the leaf for the last failure.
    """
    sent = (*metadata, *options.metadata)
    if options.request_id:
        sent = (*sent, (REQUEST_ID, options.request_id))
    allowed = seconds if options.seconds is None else options.seconds
    end = time.monotonic() + allowed
    attempt = 0
    while True:
        attempt += 1
        outcome = yield Send(max(end - time.monotonic(), 0.0), sent, options.hedge_seconds)
        if not isinstance(outcome, Exception):
            return outcome
        failed: FailedCall = outcome  # type: ignore[assignment] # what grpcio raises has the methods of a call
        pause = _pause(failed, attempt)
        if pause is None or attempt >= most or time.monotonic() + pause >= end:
            raise error_of(failed, target) from outcome
        yield Pause(pause)


def _pause(failed: FailedCall, attempt: int) -> float | None:
    """What the server asks for at least, longer with each attempt, and not the same for all callers."""
    requested = retry_delay(failed)
    if requested is None:
        return None
    grown = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
    return requested + grown * random.uniform(0.5, 1.0)  # noqa: S311 nothing here is secret
