"""What a transport tells a handler about a call, and the clock that splits the call's time into phases."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from contract.errors import DeadlineError

Phase = Literal["queue", "input", "infer", "output"]
PHASES: tuple[Phase, ...] = ("queue", "input", "infer", "output")


class Clock:
    """Attributes the time since the last lap to a phase, in nanoseconds."""

    def __init__(self, queued_ns: int = 0) -> None:
        """Start now, after waiting for a thread so long."""
        self._laps: dict[Phase, int] = {"queue": queued_ns}
        self.total: dict[Phase, int] = {"queue": queued_ns}
        """All laps since the start, also those that were taken."""
        self._last = time.perf_counter_ns()
        self.trace = ""
        """The trace that the call belongs to, if it is traced, as 32 hexadecimal digits."""

    def lap(self, phase: Phase) -> None:
        """The time since the last lap belongs to this phase."""
        now = time.perf_counter_ns()
        self._laps[phase] = self._laps.get(phase, 0) + now - self._last
        self.total[phase] = self.total.get(phase, 0) + now - self._last
        self._last = now

    def take(self) -> dict[Phase, int]:
        """The laps so far; the clock begins again."""
        laps, self._laps = self._laps, {}
        return laps


@dataclass(frozen=True)
class CallContext:
    """What a transport knows about a call; `expires` is on the clock of `time.monotonic`."""

    request_id: str
    expires: float | None = None
    clock: Clock = field(default_factory=Clock)
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    """What the caller sent beside the message."""

    @property
    def expired(self) -> bool:
        """Whether the caller's deadline has passed."""
        return self.expires is not None and time.monotonic() >= self.expires

    def require_time(self) -> None:
        """Refuse to begin work that nobody waits for any more.

        Raises:
            DeadlineError: the caller's deadline has passed.
        """
        if self.expired:
            message = "the deadline passed before the server could answer; send fewer at a time or wait longer"
            raise DeadlineError(message)


Handler = Callable[[bytes, CallContext], bytes]
