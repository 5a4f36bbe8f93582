"""Lengths of time as they stand in recipes: ``90s``, ``30m``, ``12h``, ``7d``."""

from typing import Annotated

from pydantic import Field

Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*[smhd]$")]
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(duration: str) -> int:
    """A `Duration` in milliseconds."""
    return int(duration[:-1]) * _UNITS_MS[duration[-1]]
