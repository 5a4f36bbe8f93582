"""Features from Parquet: build against SQL and polars, growth, memory, reading, lookups.

Example: ``python -m benchmarks.features --json`` (2M events; ``--full`` adds 20M under a 4 GB limit).
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.feature_rivals import build_with_polars, build_with_sql
from benchmarks.feature_world import recipe, write_events
from benchmarks.report import Case, arguments, case_of, finish
from features.batches import BatchReader
from features.build import build
from features.hashing import mix
from features.online import OnlineTable
from features.schema import Schema

ROWS, MORE_ROWS = 2_000_000, 20_000_000
LOOKUPS, KEYS, COLUMNS = 500, 1_000_000, 20
BATCH = 4096


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


def _measure(folder: Path, rows: int, rounds: int, *, full: bool) -> list[Case]:
    events = folder / "events.parquet"
    write_events(events, rows)
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: build(recipe(events), folder / "ours", _quiet),
        "sql": lambda: build_with_sql(events, folder / "sql"),
        "polars": lambda: build_with_polars(events, folder / "polars"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            _, took, _ = _apart(job)
            seconds[name].append(took)
    ours = seconds["ours"]
    cases = [case_of(f"build of {rows:,} events, {name}", values, "s") for name, values in seconds.items()]
    cases += [
        case_of("build against plain DuckDB SQL", _ratios(ours, seconds["sql"]), "x", bound=1.25),
        case_of("build against polars", _ratios(ours, seconds["polars"]), "x", bound=0.8),
        *_reading(folder / "ours"),
        _lookups(),
    ]
    return [*cases, *_growth(folder, rows, min(ours))] if full else cases


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _quiet(_: str) -> None:
    """Take progress and say nothing."""


def _apart(job: Callable[[], object]) -> tuple[int, float, float]:
    """Exit code, seconds and peak GB of memory of a job in a process of its own."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def work() -> None:
        begin = time.perf_counter()
        job()
        answers.put((time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))

    process = context.Process(target=work)
    process.start()
    process.join()
    took, peak = answers.get() if process.exitcode == 0 else (float("inf"), float("inf"))
    return process.exitcode or 0, took, peak


def _reading(directory: Path) -> list[Case]:
    """The reader's rate over that of reading the same row groups and columns alone."""
    schema = Schema.load(directory)
    path = directory / "train.parquet"
    names = [name for name in pq.read_schema(path).names if name != "__time"]
    ratios: dict[str, list[float]] = {"row groups mixed": [], "rows mixed too": []}
    for round_ in range(5):
        begin = time.perf_counter()
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=True) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group, columns=names)
        bare = time.perf_counter() - begin
        for name, mix_rows in (("row groups mixed", False), ("rows mixed too", True)):
            reader = BatchReader(path, schema, BATCH, seed=1, mix_rows=mix_rows)
            begin = time.perf_counter()
            rows = sum(batch.rows for batch in reader.epoch(round_))
            ratios[name].append(bare / (time.perf_counter() - begin) if rows == reader.rows else 0.0)
    mixed, whole = ratios["row groups mixed"], ratios["rows mixed too"]
    return [
        case_of("reader over bare decoding, row groups mixed", mixed, "x", bound=0.75, better="higher"),
        case_of("reader over bare decoding, rows mixed too", whole, "x", better="higher"),
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
    events = folder / "more.parquet"
    write_events(events, rows * 10)
    code, took, peak = _apart(lambda: build(recipe(events), folder / "more", _quiet))
    return [
        case_of(f"build of {rows * 10:,} events under 4 GB", [took], "s", bound=float("inf") if code == 0 else 0.0),
        case_of("growth to ten times the rows", [took / seconds], "x", bound=12),
        case_of("peak memory of that build", [peak], "GB", bound=5),
    ]


if __name__ == "__main__":
    sys.exit(main())
