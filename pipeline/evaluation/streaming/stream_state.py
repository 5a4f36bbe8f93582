"""The state of a pass over predictions: all rows while they fit, then sums over all rows and the rows of some users."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.predictions import Kind, Predictions
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.row_sums import ROW_SUMS
from pipeline.evaluation.streaming.mergeable import Arrays, from_bytes, nested, part_of, to_bytes
from pipeline.evaluation.streaming.score_pairs import MOST_ROWS, ScorePairs
from pipeline.evaluation.streaming.unit_sums import MOST_UNITS, UnitSums
from pipeline.evaluation.streaming.whole_users import WholeUsers, unit_hashes

MEMORY_ROWS = 10_000_000
_KINDS: tuple[Kind, ...] = ("binary", "regression")


@dataclass(frozen=True)
class Budget:
    """How many rows a pass keeps whole, and of how many it keeps the keys that make AUC exact; units for intervals."""

    rows: int = MEMORY_ROWS
    exact_rows: int = MOST_ROWS
    units: int = MOST_UNITS


@dataclass
class TaskState:
    """One task over all rows: sums by unit for each kind, pairs of scores, rows and positives."""

    sums: dict[Kind, UnitSums]
    pairs: ScorePairs
    rows: int = 0
    positives: int = 0
    weighted: bool = False

    @classmethod
    def start(cls, budget: Budget) -> Self:
        """No rows yet."""
        columns = {"binary": 4, "regression": 6}
        sums: dict[Kind, UnitSums] = {kind: UnitSums(columns[kind], budget.units) for kind in _KINDS}
        return cls(sums, ScorePairs(budget.exact_rows))

    def update(
        self, labels: NDArray[np.float32], scores: NDArray[np.float32], weights: Floats, hashes: NDArray[np.uint64]
    ) -> None:
        """Add rows to which the task applies, [n]."""
        equal = bool((weights == 1.0).all())
        self.weighted |= not equal
        for kind, sums in self.sums.items():
            # What kind of task a file has is known when its last label is read.
            sums.update(hashes, ROW_SUMS[kind].weighed(labels, scores, None if equal else weights))
        positive = labels == 1
        self.rows += labels.size
        self.positives += int(positive.sum())
        if not self.weighted:
            self.pairs.update(positive, scores)

    def merge(self, other: Self) -> None:
        """See `Mergeable`."""
        for kind, sums in self.sums.items():
            sums.merge(other.sums[kind])
        self.pairs.merge(other.pairs)
        self.rows, self.positives = self.rows + other.rows, self.positives + other.positives
        self.weighted |= other.weighted

    def arrays(self) -> Arrays:
        """See `Mergeable`."""
        parts = {kind: sums.arrays() for kind, sums in self.sums.items()}
        counts = {"counts": {"": np.array([self.rows, self.positives, int(self.weighted)])}}
        return nested(**parts, pairs=self.pairs.arrays(), **counts)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """See `Mergeable`."""
        rows, positives, weighted = (int(number) for number in arrays["counts/"])
        sums = {kind: UnitSums.from_arrays(part_of(arrays, kind)) for kind in _KINDS}
        return cls(sums, ScorePairs.from_arrays(part_of(arrays, "pairs")), rows, positives, bool(weighted))


@dataclass
class StreamState:
    """Everything that a pass knows; `first_row` tells rows of several states apart.

    While all rows fit into the budget they are kept and nothing is summed, so that every figure is that of an
    evaluation in memory. `tasks` is filled once they do not.

    Example::

        state = StreamState(Budget())
        for rows in stretches:
            state.update(rows)
        state.merge(other)
    """

    budget: Budget
    first_row: int = 0
    seen: int = 0
    users: WholeUsers = field(init=False)
    tasks: dict[str, TaskState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.users = WholeUsers(self.budget.rows)

    @property
    def is_whole(self) -> bool:
        """Whether all rows are in memory."""
        return not self.tasks

    def update(self, rows: Predictions) -> None:
        """Add a stretch of rows."""
        first = self.first_row + self.seen
        hashes = unit_hashes(rows, first)
        self.seen += rows.rows
        self.users.update(rows, hashes, first)
        if not self.is_whole:
            self._sum(rows, hashes)
        self._limit()

    def merge(self, other: Self) -> None:
        """Add the rows of another state."""
        if self.is_whole != other.is_whole:
            (self if self.is_whole else other).sum_kept()
        for name, task in other.tasks.items():
            if name in self.tasks:
                self.tasks[name].merge(task)
            else:
                self.tasks[name] = task
        self.users.merge(other.users)
        self.seen += other.seen
        self._limit()

    def sum_kept(self) -> None:
        """From now on sum all rows, beginning with those that are kept."""
        for part, hashes in zip(self.users.parts, self.users.hashes, strict=True):
            self._sum(part, hashes)

    def _limit(self) -> None:
        if self.users.is_full:
            if self.is_whole:
                self.sum_kept()
            self.users.halve()

    def _sum(self, rows: Predictions, hashes: NDArray[np.uint64]) -> None:
        for column, name in enumerate(rows.tasks):
            weights = rows.weights[:, column]
            applies = weights > 0
            task = self.tasks.setdefault(name, TaskState.start(self.budget))
            task.update(
                rows.labels[applies, column],
                rows.scores[applies, column],
                weights[applies].astype(np.float64),
                hashes[applies],
            )

    def to_bytes(self) -> bytes:
        """For another process or machine."""
        rows = self.users.parts[0] if self.users.parts else None
        facts: dict[str, Any] = {
            "budget": [self.budget.rows, self.budget.exact_rows, self.budget.units],
            "first_row": self.first_row, "seen": self.seen, "tasks": list(self.tasks),
            "like": None if rows is None else rows.about(),
        }  # fmt: skip
        parts = {f"task {number}": task.arrays() for number, task in enumerate(self.tasks.values())}
        return to_bytes(nested(users=self.users.arrays(), **parts), facts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        arrays, facts = from_bytes(data)
        state = cls(Budget(*facts["budget"]), facts["first_row"], facts["seen"])
        like = None if facts["like"] is None else Predictions.nothing(facts["like"])
        state.users = WholeUsers.from_arrays(part_of(arrays, "users"), like)
        for number, name in enumerate(facts["tasks"]):
            state.tasks[name] = TaskState.from_arrays(part_of(arrays, f"task {number}"))
        return state


def passed(
    stretches: Iterable[Predictions], budget: Budget, each: Callable[[Predictions], None] | None = None
) -> StreamState:  # fmt: skip
    """The state after all stretches of rows; `each` is called with every one, for example to write it."""
    state = StreamState(budget)
    for rows in stretches:
        if each is not None:
            each(rows)
        state.update(rows)
    return state
