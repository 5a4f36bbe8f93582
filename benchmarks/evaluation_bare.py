"""Bare onnxruntime on ready arrays, in several processes that are started and loaded before the clock runs.

``python -m benchmarks.evaluation_bare BUNDLE DATA BEGIN END`` is one of them: it makes the arrays of its rows, says so,
and scores them as often as it is told to.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import onnxruntime as ort

from contract.graph_names import MODEL_FILE
from contract.schema import Schema
from features.batches import BatchReader
from pipeline.evaluation.predictions import BATCH_ROWS

_READY, _GO = "ready\n", "go\n"


class BareRuntime:
    """A session of one thread and the arrays of rows `begin` to `end`, whole batches."""

    def __init__(self, bundle: Path, data: Path, begin: int, end: int) -> None:
        """Load the graph, and make the arrays."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(bundle / MODEL_FILE), options, providers=["CPUExecutionProvider"])
        schema = Schema.load(bundle)
        self._tasks = [task.name for task in schema.tasks]
        names, done = [node.name for node in self._session.get_inputs()], begin
        self._feeds = []
        for batch in BatchReader(data, schema, BATCH_ROWS).epoch(start=begin):
            arrays = batch.inputs.arrays()
            self._feeds.append({name: arrays[name] for name in names})
            done += batch.rows
            if done >= end:
                break

    def score(self) -> None:
        """Run all rows, and keep no answer."""
        for feed in self._feeds:
            self._session.run(self._tasks, feed)


class BareProcesses:
    """Processes that hold the arrays of an equal share of the rows each."""

    def __init__(self, processes: list["subprocess.Popen[str]"]) -> None:
        """Take over processes that are ready."""
        self._processes = processes

    def score(self) -> None:
        """Have all of them run their rows at the same time."""
        for process in self._processes:
            _say(process, _GO)
        for process in self._processes:
            _hear(process)


@contextmanager
def bare_processes(bundle: Path, data: Path, rows: int, count: int) -> Iterator[BareProcesses]:
    """`count` of them, ready; they end with the context."""
    batches = -(-rows // BATCH_ROWS)
    ends = [min(batches * number // count * BATCH_ROWS, rows) for number in range(count + 1)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.evaluation_bare", str(bundle), str(data), str(begin), str(end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for begin, end in pairwise(ends)
    ]
    try:
        for process in processes:
            _hear(process)
        yield BareProcesses(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(line)
        process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> None:
    line = "" if process.stdout is None else process.stdout.readline()
    if line != _READY:
        message = f"a bare process said {line!r}"
        raise RuntimeError(message)


def main() -> None:
    """Serve the parent until it hangs up."""
    runtime = BareRuntime(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(_READY)
    sys.stdout.flush()
    for _ in sys.stdin:
        runtime.score()
        sys.stdout.write(_READY)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
