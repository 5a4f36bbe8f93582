"""Time zones: where days and hours begin, summer time included, as expressions that every engine computes alike."""

import functools
import itertools
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import ibis

from contract.errors import ConfigError
from features.source.row_types import DAY_MS, HOUR_MS

Steps = tuple[tuple[int, int], ...]
"""From which moment on a zone has which offset east of UTC, both in milliseconds."""
_BEGIN, _END, _DAY = 631_152_000, 2_524_608_000, 86_400
"""1990 and 2050: before and after, a zone is said to have the offset of its first and last step."""


@functools.cache
def offset_steps(zone: str) -> Steps:
    """The steps of a zone, found by halving the days on which its offset changes.

    Raises:
        ConfigError: no such zone.
    """
    if zone == "UTC":
        return ((_BEGIN * 1000, 0),)
    info = _zone(zone)

    def offset(second: int) -> int:
        return int((datetime.fromtimestamp(second, info).utcoffset() or timedelta()).total_seconds())

    steps = [(_BEGIN * 1000, offset(_BEGIN) * 1000)]
    by_day = [(day, offset(day)) for day in range(_BEGIN, _END + _DAY, _DAY)]
    for (day, before), (next_day, after) in itertools.pairwise(by_day):
        if after != before:
            low, high = day, next_day
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            steps.append((high * 1000, offset(high) * 1000))
    return tuple(steps)


def local_ms(ms: Any, zone: str) -> Any:
    """What the clocks of a zone show at a moment, as milliseconds since they showed 1970."""
    steps = offset_steps(zone)
    return ms + _by_step(ms, [(begin, offset) for begin, offset in steps])


def utc_ms(local: Any, zone: str) -> Any:
    """The moment at which the clocks of a zone showed a time; of an hour that they showed twice, the later one."""
    return local - _by_step(local, [(begin + offset, offset) for begin, offset in offset_steps(zone)])


def day_of(ms: Any, zone: str) -> Any:
    """The number of a moment's day on a zone's clocks."""
    return (local_ms(ms, zone) // DAY_MS).cast("int64")


def hour_of(ms: Any, zone: str) -> Any:
    """The number of a moment's hour; hours are equally long, and aligned with those of the zone's winter."""
    return ((ms + offset_steps(zone)[0][1]) // HOUR_MS).cast("int64")


def day_begin(day: Any, zone: str) -> Any:
    """The first moment of a day, from its number."""
    steps = offset_steps(zone)
    # A day begins with a step's offset if its midnight, by that offset, is not before the step.
    return day * DAY_MS - _by_step(day, [(-(-(begin + offset) // DAY_MS), offset) for begin, offset in steps])


def day_number(ms: int, zone: str) -> int:
    """As `day_of`, of one moment."""
    steps = offset_steps(zone)
    return (ms + steps[max(bisect_right([begin for begin, _ in steps], ms) - 1, 0)][1]) // DAY_MS


def day_begin_ms(day: int, zone: str) -> int:
    """As `day_begin`, of one day."""
    steps = offset_steps(zone)
    firsts = [-(-(begin + offset) // DAY_MS) for begin, offset in steps]
    return day * DAY_MS - steps[max(bisect_right(firsts, day) - 1, 0)][1]


def longest_shift_ms(zone: str) -> int:
    """By how much a day may be shorter or longer than another."""
    offsets = [offset for _, offset in offset_steps(zone)]
    return max((abs(one - other) for one, other in itertools.pairwise(offsets)), default=0)


def _by_step(value: Any, steps: list[tuple[int, int]]) -> Any:
    """The offset of the last step that begins at or before a value."""
    if len(steps) == 1:
        return steps[0][1]
    return ibis.cases(*[(value >= begin, offset) for begin, offset in reversed(steps[1:])], else_=steps[0][1])


def _zone(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        message = f"{zone!r} is not a time zone; use an IANA name such as 'Asia/Shanghai'"
        raise ConfigError(message) from error
