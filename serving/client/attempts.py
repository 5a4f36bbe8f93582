"""What both clients do with one call, free of any way to wait: deadlines, attempts, pauses, named errors."""

import math
import random
import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from contract.errors import RequestError
from serving.client.call_errors import FailedCall, error_of, retry_delay

REQUEST_ID = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What the server takes over; it would give any other call an id of its own."""
_KEY, _VALUE = re.compile(r"[a-z0-9._-]+"), re.compile(r"[ -~]*")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
Metadata = tuple[tuple[str, str | bytes], ...]


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
    target: str, most: int, seconds: float, metadata: Sequence[tuple[str, str | bytes]], options: CallOptions
) -> Generator[Step, Any, Any]:
    """Say what to do next, and take the outcome of each `Send`: the response, or the exception of grpcio.

    Returns:
        The response.

    Raises:
        RequestError: an option that no call can have, naming it.
        MoerankError: the leaf for the last failure.
    """
    sent = _sendable((*metadata, *options.metadata), options.request_id)
    allowed = _positive("seconds", seconds if options.seconds is None else options.seconds)
    if options.hedge_seconds:
        _positive("hedge_seconds", options.hedge_seconds)
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


def _positive(field: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        message = f"{field} is {seconds!r}; allowed are numbers greater than 0"
        raise RequestError(message, field=field)
    return seconds


def _sendable(metadata: Metadata, request_id: str) -> Metadata:
    """The metadata with the request's id; grpcio would say of what it cannot send that the server failed."""
    for key, value in metadata:
        if not _is_metadata(key, value):
            message = (
                f"metadata {key[:80]!r} is {value[:80]!r}; allowed are names of lower-case letters, digits and -_. with"
                f" values of printable ASCII, and names that end in -bin with bytes"
            )
            raise RequestError(message, field="metadata")
    if not request_id:
        return metadata
    if not _ID.fullmatch(request_id):
        message = f"request_id is {request_id[:80]!r}; allowed are up to 64 ASCII letters, digits and -_."
        raise RequestError(message, field="request_id")
    return (*metadata, (REQUEST_ID, request_id))


def _is_metadata(key: str, value: str | bytes) -> bool:
    named = _KEY.fullmatch(key) is not None
    if isinstance(value, bytes):
        return named and key.endswith("-bin")
    return named and not key.endswith("-bin") and _VALUE.fullmatch(value) is not None


def _pause(failed: FailedCall, attempt: int) -> float | None:
    """What the server asks for at least, longer with each attempt, and not the same for all callers."""
    requested = retry_delay(failed)
    if requested is None:
        return None
    grown = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
    return requested + grown * random.uniform(0.5, 1.0)  # noqa: S311 nothing here is secret
