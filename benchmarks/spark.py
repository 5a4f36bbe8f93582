"""Builds on Spark at three sizes of the log: the work that a cluster shares, and that of the driver alone.

Spark's own work is the JVM's processor time, the driver's that of its Python process; other work on the machine moves
both little. What grows in proportion can be drawn on: the last rows say what a billion events would take. There are no
bounds.

Example: ``python -m benchmarks.spark --json`` (100,000, a million and ten million events on ``local[2]``; needs
``pip install 'moerank[spark]'`` and Java 17).
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.feature_increment import write_days
from benchmarks.feature_world import recipe, write_events
from benchmarks.report import Case, NotInstalled, arguments, case_of, finish, row_of
from features.build import build
from features.feature_config import FeaturesConfig

SIZES = (100_000, 1_000_000, 10_000_000)
BILLION = 1_000_000_000


class Spent(NamedTuple):
    """CPU seconds of the JVM and of the driver's Python, wall seconds, and the peak memory of that Python in GB."""

    jvm: float
    driver: float
    wall: float
    peak: float


def main() -> int:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES), help="events of each log")
    parser.add_argument("--master", default="local[2]", help="the Spark master [%(default)s]")
    chosen = parser.parse_args()
    if find_spec("pyspark") is None:
        return finish("spark", [NotInstalled("builds on Spark", "pyspark")], as_json=chosen.json)
    with tempfile.TemporaryDirectory(prefix="moerank-spark-") as folder:
        cases = _measure(Path(folder), sorted(chosen.rows), chosen.master)
    return finish("spark", cases, as_json=chosen.json)


def _measure(folder: Path, sizes: list[int], master: str) -> list[Case | NotInstalled]:
    runs: list[Spent] = []
    cases: list[Case | NotInstalled] = []
    for rows in sizes:
        print(f"{rows:,} events", file=sys.stderr, flush=True)
        events, settings = folder / f"{rows}.parquet", {"engine": "spark", "spark_master": master}
        write_events(events, rows)
        runs.append(_apart(recipe(events).model_copy(update=settings), folder / str(rows)))
        cases += _shown(_cases(f"{rows:,} events", runs[-1]))
    if len(sizes) > 1:
        cases += _shown([_drawn_on(what, sizes, runs) for what in ("jvm", "driver")])
    rows = sizes[(len(sizes) - 1) // 2]
    whole, day = _one_day(folder, folder / f"{rows}.parquet", master)
    name = f"{rows:,} events, one day on top of 29 against all 30, processor time"
    return cases + _shown([case_of(name, [day / whole], "x")])


def _shown(cases: list[Case]) -> list[Case]:
    """The cases, told at once: the larger logs take long."""
    for case in cases:
        print(row_of(case), file=sys.stderr, flush=True)
    return cases


def _cases(name: str, run: Spent) -> list[Case]:
    return [
        case_of(f"{name}, Spark's processor time", [run.jvm], "s"),
        case_of(f"{name}, the driver's processor time", [run.driver], "s"),
        case_of(f"{name}, wall time", [run.wall], "s"),
        case_of(f"{name}, the driver's peak memory", [run.peak], "GB"),
    ]


def _drawn_on(what: str, sizes: list[int], runs: list[Spent]) -> Case:
    """CPU hours for a billion events: the line through the last two sizes, so that what every build costs is fixed."""
    (before, last), (first, second) = sizes[-2:], (getattr(run, what) for run in runs[-2:])
    seconds = second + (second - first) / (last - before) * (BILLION - last)
    return case_of(f"a billion events, {what}, extrapolated", [seconds / 3600], "CPU h")


def _one_day(folder: Path, events: Path, master: str) -> tuple[float, float]:
    """CPU seconds of a build of all days, and of one of the last day on top of the others."""
    files = write_days(events, folder / "log")
    changes = {"engine": "spark", "spark_master": master, "incremental": True}
    settings = recipe(folder / "log").model_copy(update=changes)
    last = files[-1].rename(folder / "last.parquet")
    _apart(settings, folder / "grown")
    last.rename(files[-1])
    day, whole = (_apart(settings, folder / name) for name in ("grown", "whole"))
    return whole.jvm + whole.driver, day.jvm + day.driver


def _apart(config: FeaturesConfig, directory: Path) -> Spent:
    """A build in a process of its own, so that each has a JVM of its own.

    Raises:
        RuntimeError: the build failed.
    """
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_work, args=(config, directory, answers))
    process.start()
    process.join()
    if process.exitcode:
        message = f"the build of {directory.name} ended with {process.exitcode}"
        raise RuntimeError(message)
    return Spent(*answers.get())


def _work(config: FeaturesConfig, directory: Path, answers: "multiprocessing.queues.SimpleQueue[Spent]") -> None:
    begin = time.perf_counter()
    build(config, directory, lambda _: None)
    wall = time.perf_counter() - begin
    _end_the_jvm()
    own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    jvm, driver = child.ru_utime + child.ru_stime, own.ru_utime + own.ru_stime
    answers.put(Spent(jvm, driver, wall, own.ru_maxrss / 2**20))


def _end_the_jvm() -> None:
    """End the JVM and wait for it, since only then the system counts its time."""
    from pyspark import SparkContext  # noqa: PLC0415 - an optional extra

    gateway = SparkContext._gateway  # noqa: SLF001 - there is no public way to its process
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    sys.exit(main())
