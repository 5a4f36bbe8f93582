"""Features from Parquet: build against SQL and polars, growth, memory, reading, lookups.

The rivals do what the build does up to the encoded rows. What it does beyond them, its quality report and its online
tables, is timed apart; verified source pages and the search for leaks are off, which the rivals do not have.

Example: ``python -m benchmarks.features --json`` (2M events; ``--full`` adds 20M under a 4 GB limit). polars is
compared where it is installed (``pip install 'moerank[rivals]'``). On a busy machine read the rows in processor time.
"""

import gc
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import ibis.backends.duckdb.converter  # noqa: F401 - so that the build finds it loaded, as the rivals find theirs
import numpy as np
import pyarrow.parquet as pq

from benchmarks.feature_increment import jobs_of_a_day
from benchmarks.feature_rivals import build_with_sql
from benchmarks.feature_world import DAYS, recipe, write_events
from benchmarks.report import Case, NotInstalled, arguments, case_of, finish
from contract.dataset import EncodedDataset
from contract.hashing import mix
from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.online.online_table import OnlineTable

ROWS, MORE_ROWS = 2_000_000, 20_000_000
LOOKUPS, KEYS, COLUMNS = 500, 1_000_000, 20
BATCH = 4096
BEYOND = frozenset({"data quality and online tables", "replaying training rows as requests"})
"""Stages of a build for which the rivals have nothing."""


class Spent(NamedTuple):
    """Seconds on the wall's clock and of the processor."""

    wall: float
    processor: float


class Run(NamedTuple):
    """A job in a process of its own: exit code, seconds, peak memory in GB, MB written, and what `BEYOND` took."""

    code: int
    seconds: float
    processor: float
    peak: float
    written: float
    beyond: Spent


Job = Callable[[Callable[[str], None]], object]
"""Takes what is told of its progress."""


def main() -> int:
    """Measure, print and say whether all bounds hold."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="events of the comparison")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of the comparison")
    parser.add_argument("--full", action="store_true", help="also ten times as many events under a 4 GB limit")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moerank-features-") as folder:
        cases = _measure(Path(folder), chosen.rows, chosen.rounds, full=chosen.full)
    return finish("features", cases, as_json=chosen.json)


def _measure(folder: Path, rows: int, rounds: int, *, full: bool) -> list[Case | NotInstalled]:
    events = folder / "events.parquet"
    write_events(events, rows)
    jobs: dict[str, Job] = {
        "ours": lambda progress: build(recipe(events), folder / "ours", progress),
        "sql": lambda _: build_with_sql(events, folder / "sql"),
    }
    if find_spec("polars"):
        from benchmarks.feature_polars import build_with_polars  # noqa: PLC0415 - polars is optional

        jobs["polars"] = lambda _: build_with_polars(events, folder / "polars")
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            runs[name].append(_apart(job))
    whole = [run.seconds for run in runs["ours"]]
    cases: list[Case | NotInstalled] = [
        case_of(f"build of {rows:,} events, {name}", [r.seconds for r in runs[name]], "s") for name in jobs
    ]
    polars = (
        _against("polars", runs["ours"], runs["polars"], bound=0.8)
        if "polars" in runs
        else [NotInstalled("the same job against polars", "polars")]
    )
    cases += [
        case_of("of which quality report, online tables and their check", [r.beyond.wall for r in runs["ours"]], "s"),
        *_against("plain DuckDB SQL", runs["ours"], runs["sql"], bound=1.25),
        *polars,
        *_increment(events, folder / "days", rounds),
        *_reading(folder / "ours"),
        _lookups(),
    ]
    return [*cases, *_growth(folder, rows, statistics.median(whole))] if full else cases


def _against(rival: str, ours: list[Run], theirs: list[Run], *, bound: float) -> list[Case]:
    """The same job in time, and in processor time, which other work on the machine moves less."""
    pairs = list(zip(ours, theirs, strict=True))
    seconds = [(a.seconds - a.beyond.wall) / b.seconds for a, b in pairs]
    processor = [(a.processor - a.beyond.processor) / b.processor for a, b in pairs]
    return [
        case_of(f"the same job against {rival}", seconds, "x", bound=bound),
        case_of(f"the same job against {rival}, processor time", processor, "x"),
    ]


def _increment(events: Path, folder: Path, rounds: int) -> list[Case]:
    """A new day on top of built ones over building all days."""
    prepare, jobs = jobs_of_a_day(events, folder, _apart)
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    size = sum(file.stat().st_size for file in (folder / "log").iterdir()) / 2**20
    for _ in range(rounds):
        for name, job in jobs.items():
            prepare(name)
            runs[name].append(_apart(job))
    pairs = list(zip(runs["day"], runs["whole"], strict=True))
    what = "one day on top of 29 against all 30"
    prepare, jobs = jobs_of_a_day(events, folder / "half", _apart, days=DAYS // 2)
    prepare("day")
    early = _apart(jobs["day"])
    return [
        case_of(what, [day.seconds / whole.seconds for day, whole in pairs], "x", bound=0.2),
        case_of(f"{what}, processor time", [day.processor / whole.processor for day, whole in pairs], "x"),
        case_of("log of 30 days", [size], "MB"),
        case_of("written by a build of all 30 days", [run.written for run in runs["whole"]], "MB"),
        case_of("written by a build of one day on top of 29", [run.written for run in runs["day"]], "MB"),
        case_of("written by a build of one day on top of 14", [early.written], "MB"),
        # What grows with the log is the online tables, which have a row for each key that was ever seen.
        case_of(
            "written by one day on top of 29 against one on top of 14",
            [day.written / early.written for day, _ in pairs],
            "x",
            bound=1.5,
        ),
    ]


class _Clock:
    """Takes progress and keeps when each stage began."""

    def __init__(self) -> None:
        self.begins: list[tuple[str, Spent]] = []

    def __call__(self, stage: str) -> None:
        self.begins.append((stage, _now()))

    def of(self, stages: frozenset[str]) -> Spent:
        """What some stages took."""
        ends = [begin for _, begin in self.begins[1:]] + [_now()]
        mine = [(b, e) for (stage, b), e in zip(self.begins, ends, strict=bool(self.begins)) if stage in stages]
        return Spent(sum(e.wall - b.wall for b, e in mine), sum(e.processor - b.processor for b, e in mine))


def _now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def _apart(job: Job) -> Run:
    """Run a job in a process of its own."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def work() -> None:
        # Else the collector walks, and so copies, all that was loaded before the fork.
        gc.freeze()
        clock, begin, written = _Clock(), _now(), _bytes_written()
        job(clock)
        end, written = _now(), _bytes_written() - written
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds, processor = end.wall - begin.wall, end.processor - begin.processor
        answers.put(Run(0, seconds, processor, peak, written / 2**20, clock.of(BEYOND)))

    process = context.Process(target=work)
    process.start()
    process.join()
    failed = float("inf")
    return (
        answers.get()
        if process.exitcode == 0
        else Run(process.exitcode or 1, failed, failed, failed, failed, Spent(0, 0))
    )


def _bytes_written() -> int:
    """Bytes that this process has handed to the system to write, its scratch files included; 0 where it cannot say."""
    counters = Path("/proc/self/io")
    if not counters.is_file():
        return 0
    lines = dict(line.split(": ") for line in counters.read_text(encoding="ascii").splitlines())
    return int(lines["wchar"])


def _reading(directory: Path) -> list[Case]:
    """The reader's rate over that of reading the same row groups and columns alone."""
    schema = Schema.load(directory)
    train = EncodedDataset.open(directory / "train")
    names = [name for name in train.column_names if name != "__time"]
    walls: dict[str, list[float]] = {"row groups mixed": [], "rows mixed too": []}
    processor: dict[str, list[float]] = {name: [] for name in walls}
    for round_ in range(5):
        for name, mix_rows in (("row groups mixed", False), ("rows mixed too", True)):
            begin = _now()
            for path in train.files:
                with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=True) as file:
                    for group in range(file.num_row_groups):
                        file.read_row_group(group, columns=names)
            between = _now()
            reader = BatchReader(train.path, schema, BATCH, seed=1, mix_rows=mix_rows)
            rows = sum(batch.rows for batch in reader.epoch(round_))
            end, read = _now(), rows == reader.total_rows
            walls[name].append((between.wall - begin.wall) / (end.wall - between.wall) if read else 0.0)
            processor[name].append((between.processor - begin.processor) / (end.processor - between.processor))
    what = "reader over bare decoding"
    mixed, whole = walls
    return [
        case_of(f"{what}, {mixed}", walls[mixed], "x", bound=0.75, better="higher"),
        case_of(f"{what}, {mixed}, processor time", processor[mixed], "x", better="higher"),
        case_of(f"{what}, {whole}", walls[whole], "x", better="higher"),
        case_of(f"{what}, {whole}, processor time", processor[whole], "x", better="higher"),
    ]


def _lookups() -> Case:
    """Lookups of many columns among many keys in a mapped table, microseconds for all of them."""
    keys = mix(np.arange(KEYS, dtype=np.uint64))
    dense = np.random.default_rng(0).random((KEYS + 1, COLUMNS), dtype=np.float32)
    names = tuple(f"column {place}" for place in range(COLUMNS))
    table = OnlineTable(
        keys, np.zeros((KEYS + 1, 0), np.int32), dense, np.zeros((KEYS + 1, 0), np.uint64), {}, (), names
    )
    draw = np.random.default_rng(1)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder) / "table")
        opened = OnlineTable.open(Path(folder) / "table")
        for _ in range(300):
            wanted = keys[draw.integers(0, KEYS, LOOKUPS)]
            begin = time.perf_counter()
            rows, _known = opened.find(wanted)
            opened.dense.take(rows, axis=0)
            times.append((time.perf_counter() - begin) * 1e6)
    return case_of("500 lookups of 20 columns among 1M keys", times[50:], "us", bound=200)


def _growth(folder: Path, rows: int, seconds: float) -> list[Case]:
    """Ten times the rows under a memory limit; `seconds` is the median of the builds of `rows`."""
    events = folder / "more.parquet"
    write_events(events, rows * 10)
    run = _apart(lambda progress: build(recipe(events), folder / "more", progress))
    return [
        # No bound: that a build of this size ends at all is what the row says; one that fails is infinitely slow.
        case_of(f"build of {rows * 10:,} events under 4 GB", [run.seconds], "s"),
        case_of("growth to ten times the rows", [run.seconds / seconds], "x", bound=12),
        case_of("peak memory of that build", [run.peak], "GB", bound=5),
    ]


if __name__ == "__main__":
    sys.exit(main())
