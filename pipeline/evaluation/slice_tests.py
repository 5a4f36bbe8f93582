"""Which slices differ from the whole: tests whose chance of any false mark stays below 5 % for all of them together.

Shape legend: N rows, U users.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.influence import TaskInfluence
from pipeline.evaluation.multiple_tests import holm, two_sided, weights_of
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.task_rows import HEADLINE

LEAST_USERS = 20
"""With fewer users in a slice, or outside it, their spread says little about that of others."""
_HEADLINES = frozenset(HEADLINE.values())


@dataclass(frozen=True)
class SliceInfluence:
    """The influence of a slice's users by task, and the number of each of them among all users, [users]."""

    tasks: Mapping[str, TaskInfluence]
    numbers: NDArray[np.int64]


def named_few(names: Sequence[str], most: int = 3) -> str:
    """The first of many names and how many more there are, for a sentence.

    Example:
        >>> named_few(["day 1", "day 2", "day 3", "day 4", "day 5"])
        'day 1, day 2, day 3 and 2 more'
    """
    shown = names if len(names) <= most + 1 else names[:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


class Tested(NamedTuple):
    """A metric of a task on a slice minus that of all rows, and a p-value."""

    slice: str
    value: str
    task: str
    metric: str
    difference: float
    p: float


def tested_slices(
    slices: Mapping[str, Mapping[str, SliceInfluence]], whole: Mapping[str, TaskInfluence]
) -> list[Tested]:  # fmt: skip
    """Each task's headline and calibration on each slice against all rows, p-values adjusted for all (Holm).

    The headlines share four fifths of the level, as in `compare`. Slices of few users, in them or outside, are left
    out. `whole` are the influences on all rows.
    """
    tests = [
        test
        for name, values in slices.items()
        for value, part in values.items()
        for test in _tests(name, value, part, whole)
    ]  # fmt: skip
    adjusted = holm(np.array([test.p for test in tests]), weights_of([test.metric in _HEADLINES for test in tests]))
    return [test._replace(p=p) for test, p in zip(tests, adjusted.tolist(), strict=True)]


def _tests(name: str, value: str, part: SliceInfluence, whole: Mapping[str, TaskInfluence]) -> Iterator[Tested]:
    for task, mine in part.tasks.items():
        inside = int(np.count_nonzero(mine.weight))
        outside = whole[task].weight.copy()
        outside[part.numbers] -= mine.weight
        # Sums of the same weights in another order differ by rounding.
        users = min(inside, int(np.count_nonzero(outside > 1e-9 * whole[task].weight)))
        if users < LEAST_USERS:
            continue
        for metric, each in mine.metrics.items():
            all_rows = whole[task].metrics.get(metric)
            if all_rows is not None:
                error = _error(each.by_user, all_rows.by_user, part.numbers, users)
                p = two_sided(each.scaled - all_rows.scaled, error, users)
                yield Tested(name, value, task, metric, each.value - all_rows.value, p)


def _error(mine: Floats, whole: Floats, numbers: NDArray[np.int64], users: int) -> float:
    """The standard error of a difference between a slice, [users], and the whole, [U], of which it is a part."""
    influence = -whole
    influence[numbers] += mine
    return float(np.sqrt(np.square(influence).sum() * users / (users - 1.0)))
