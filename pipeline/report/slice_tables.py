"""The tables of slices in a report, with marks on what differs from the whole."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.evaluation.result import Slice, SliceTest, TaskScores, better

Slices = Mapping[str, Mapping[str, Slice]]


@dataclass(frozen=True)
class Mark:
    """Says beside a figure that it differs from that of all rows."""

    sign: str
    css: str
    text: str


@dataclass(frozen=True)
class SliceRow:
    """One value of a slice: its rows and each task's scores there (empty where they cannot be judged)."""

    name: str
    rows: int
    tasks: TaskScores
    undefined: Mapping[str, Mapping[str, str]]
    marks: Mapping[tuple[str, str], Mark]


@dataclass(frozen=True)
class SliceTests:
    """How many tests on slices there are, how many of them found something, and which slices have none."""

    tests: int
    marked: int
    untested: tuple[str, ...]


def slice_rows(slices: Slices) -> dict[str, list[SliceRow]]:
    """The tables of the slices by their names."""
    return {
        name.replace("_", " "): [
            SliceRow(value, part.rows, part.tasks, part.undefined, _marks(part)) for value, part in values.items()
        ]
        for name, values in slices.items()
    }


def slice_tests(slices: Slices) -> SliceTests:
    """What to say above the tables."""
    tests = [
        test
        for values in slices.values()
        for part in values.values()
        for metrics in part.tests.values()
        for test in metrics.values()
    ]
    untested = [
        f"{name.replace('_', ' ')} {value}"
        for name, values in slices.items()
        for value, part in values.items()
        if not part.tests
    ]
    return SliceTests(len(tests), sum(test.differs for test in tests), tuple(untested))


def _marks(part: Slice) -> dict[tuple[str, str], Mark]:
    return {
        (task, metric): _mark(metric, test)
        for task, metrics in part.tests.items()
        for metric, test in metrics.items()
        if test.differs
    }


def _mark(metric: str, test: SliceTest) -> Mark:
    text = f"{test.difference:+.4f} against all rows, adjusted p {test.p_adjusted:.3f}"
    if metric == "calibration":
        return Mark("●", "", f"another calibration: {text}")
    is_better = better(metric, test.difference, 0.0)
    return Mark("▲", "good", f"better: {text}") if is_better else Mark("▼", "bad", f"worse: {text}")
