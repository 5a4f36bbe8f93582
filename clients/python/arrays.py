"""The arrays of answers as plain sequences: what `serving/graph/arrays.py` is in the distribution without NumPy."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

Floats = Sequence[float]
Positions = Sequence[int]
Matrix = Sequence[Sequence[float]]
Flags = Sequence[Sequence[bool]]
Columnar = Sequence[Any]
"""One value per candidate."""
WHOLE = (int,)
"""Types of whole numbers."""


def floats(values: Iterable[float]) -> Floats:
    """Float32 [n]."""
    return array("f", values)


def positions(values: Iterable[int]) -> Positions:
    """Unsigned numbers [n]."""
    return array("L", values)


def matrix(values: Iterable[float], width: int) -> Matrix:
    """Float32 [n / width, width]."""
    flat = array("f", values)
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def plain(content: Any) -> Any:
    """Python's own numbers and lists in place of an array library's, such as NumPy's."""
    convert = getattr(content, "tolist", None)
    return content if convert is None else convert()


def used_experts(gates: Sequence[tuple[int, Matrix]]) -> Flags:
    """Which experts at least one gate weighed, from each gate's level and weights [N, E]; level by level [N, all E]."""
    levels: dict[int, list[list[bool]]] = {}
    for level, weights in gates:
        own = [[weight != 0 for weight in row] for row in weights]
        before = levels.get(level, own)
        levels[level] = [[a or b for a, b in zip(*rows, strict=True)] for rows in zip(before, own, strict=True)]
    ordered = [levels[level] for level in sorted(levels)]
    return [[flag for part in row for flag in part] for row in zip(*ordered, strict=True)]


def mean_of(flags: Flags) -> float:
    """The share of those that are true."""
    every = [flag for row in flags for flag in row]
    return sum(every) / len(every)
