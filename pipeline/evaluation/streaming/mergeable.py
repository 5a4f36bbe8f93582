"""What every state of a pass over rows has in common, so that files, processes and machines can share the work.

::

    state = init()          # one for each file, process or machine
    state.update(rows)      # with each stretch of rows
    state.merge(other)      # in any order
    state.arrays()          # to send it; `from_arrays` of its class takes them in

What a state finishes into is its own affair.
"""

import io
import json
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Mergeable(Protocol):
    """A state that sums up some rows; what it says depends neither on how they are divided nor on their order."""

    def merge(self, other: Self) -> None:
        """Take in the rows of another state of the same kind."""
        ...

    def arrays(self) -> Arrays:
        """Everything in it, as arrays by name."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave."""
        ...


def nested(**parts: Arrays) -> Arrays:
    """The arrays of several states in one mapping."""
    return {f"{name}/{key}": array for name, arrays in parts.items() for key, array in arrays.items()}


def part_of(arrays: Arrays, name: str) -> Arrays:
    """The arrays of one of the states that `nested` put together."""
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}


def to_bytes(arrays: Arrays, facts: Mapping[str, Any]) -> bytes:
    """Arrays and facts of JSON as bytes, without pickle."""
    buffer = io.BytesIO()
    header = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, __facts__=header, **{name.replace("/", "|"): a for name, a in arrays.items()})
    return buffer.getvalue()


def from_bytes(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """What `to_bytes` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name.replace("|", "/"): stored[name] for name in stored.files}
    facts = json.loads(arrays.pop("__facts__").tobytes())
    return arrays, facts
