"""The arrays of answers: NumPy's here, plain sequences in the distribution of the client alone (`clients/python`)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Positions = NDArray[np.uint32]
Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]
Columnar = Sequence[Any] | NDArray[Any]
"""One value per candidate."""
WHOLE = (int, np.integer)
"""Types of whole numbers."""


def floats(values: Iterable[float]) -> Floats:
    """Float32 [n]."""
    return np.array(values, np.float32)


def positions(values: Iterable[int]) -> Positions:
    """Uint32 [n]."""
    return np.array(values, np.uint32)


def matrix(values: Iterable[float], width: int) -> Matrix:
    """Float32 [n / width, width]."""
    return np.array(values, np.float32).reshape(-1, width)


def plain(content: Any) -> Any:
    """Python's own numbers and lists in place of NumPy's."""
    return content.tolist() if isinstance(content, np.generic | np.ndarray) else content


def used_experts(gates: Sequence[tuple[int, Matrix]]) -> Flags:
    """Which experts at least one gate weighed, from each gate's level and weights [N, E]; level by level [N, all E]."""
    levels: dict[int, Flags] = {}
    for level, weights in gates:
        own = weights != 0
        levels[level] = levels[level] | own if level in levels else own
    return np.concatenate([levels[level] for level in sorted(levels)], axis=1)


def mean_of(flags: Flags) -> float:
    """The share of those that are true."""
    return float(flags.mean())
