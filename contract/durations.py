"""Lengths of time as they stand in recipes: ``90s``, ``30m``, ``12h``, ``7d``."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_PATTERN = r"^[1-9][0-9]*[smhd]$"
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def is_duration(value: object) -> bool:
    """Whether a value of a recipe is a length of time."""
    return isinstance(value, str) and re.match(_PATTERN, value) is not None


def _require_duration(value: Any) -> Any:
    if not is_duration(value):
        message = "a length of time is a whole number of s, m, h or d, such as 90s, 12h or 7d"
        raise ValueError(message)
    return value


Duration = Annotated[str, Field(pattern=_PATTERN), BeforeValidator(_require_duration)]


def milliseconds(duration: str) -> int:
    """A `Duration` in milliseconds."""
    return int(duration[:-1]) * _UNITS_MS[duration[-1]]
