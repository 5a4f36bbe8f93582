"""One evaluation of many rows in a process of its own: its seconds and its peak memory."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Case, case_of
from pipeline.console import say
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate_file
from pipeline.evaluation.predictions import Predictions

_PART_ROWS = 5_000_000
_ROWS_A_USER = 38
_GROWTH = 10


def write_parts(folder: Path, rows: int) -> None:
    """Files of labels and scores as `moerank evaluate --predictions` reads them."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    users = rng.integers(1, 2**63, rows // _ROWS_A_USER + 1).astype(np.uint64)
    for number, begin in enumerate(range(0, rows, _PART_ROWS)):
        count = min(_PART_ROWS, rows - begin)
        scores = (1.0 / (1.0 + np.exp(2.0 - rng.normal(size=(count, 1))))).astype(np.float32)
        labels = (rng.random((count, 1)) < scores).astype(np.float32)
        user, keys = users[rng.integers(0, users.size, count)], np.zeros(count, dtype=np.uint64)
        times = np.zeros(count, dtype=np.int64)
        part = Predictions({"click": "binary"}, labels, np.ones_like(labels), scores, user, keys, times)
        part.save(folder / f"part-{number:05}.parquet")


def stream(rows: int, rounds: int) -> list[Case]:
    """`rows` and ten times as many, in turn."""
    with tempfile.TemporaryDirectory(prefix="moerank-stream-") as scratch:
        folders = [Path(scratch) / str(count) for count in (rows, rows * _GROWTH)]
        for folder in folders:
            say(f"stream: writing {int(folder.name):,} rows")
            write_parts(folder, int(folder.name))
        pairs = []
        for number in range(rounds):
            say(f"stream: round {number + 1} of {rounds}")
            pairs.append([_evaluated(folder) for folder in folders])
    small, large = (f"{count:,}" for count in (rows, rows * _GROWTH))
    return [
        case_of(f"evaluate {small} rows", [pair[0]["seconds"] for pair in pairs], "s"),
        case_of(
            f"evaluate {large} rows / {small} rows", [pair[1]["seconds"] / pair[0]["seconds"] for pair in pairs], "x",
            bound=1.2 * _GROWTH,
        ),
        case_of(f"evaluate {large} rows: peak memory", [pair[1]["gb"] for pair in pairs], "GB", bound=4.0),
        case_of(f"evaluate {large} rows: AUC exact or not wider than", [pair[1]["bounds"] for pair in pairs], "AUC"),
    ]  # fmt: skip


def _evaluated(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.evaluation_stream", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return spent


def main() -> int:
    """Evaluate a folder, and print seconds and gigabytes as JSON."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="moerank-stream-out-") as out:
        evaluation = evaluate_file(Path(sys.argv[1]), Path(out), config=EvaluateConfig())
    bounds = [finding for finding in evaluation.findings if "lies for certain between" in finding]
    low, high = bounds[0].partition("between ")[2].partition(";")[0].split(" and ") if bounds else ("0", "0")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": time.perf_counter() - begin, "gb": peak, "bounds": float(high) - float(low)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
