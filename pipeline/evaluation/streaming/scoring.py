"""Score encoded rows in several processes."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from contract.errors import PredictionError, raised_elsewhere
from pipeline.evaluation.predictions import Predictions, Progress, predict_stretches
from pipeline.evaluation.streaming import scoring_process
from pipeline.evaluation.streaming.rows_to_score import RowsToScore
from serving.graph.engine import Engine
from serving.grpc_server.process_channel import Message, ProcessChannel

# By its import, so that its code is in the digest of a step that scores: a name in a text would not be.
_WORKER = scoring_process.__name__
Part = tuple[int, int]
"""The first row of a stretch, and the one after its last."""


def score(
    bundle: Path, data: Path, rows: int, *, processes: int = 1, threads: int = 1, progress: Progress | None = None
) -> Iterator[Predictions]:
    """As `predict_stretches`, in any number of processes; the rows come in the order of reading.

    This process begins with the first rows while the others start, and takes those that they have scored from disk.

    Raises:
        MoerankError: as `predict_stretches`.
    """
    if processes == 1:
        engine = Engine(bundle, threads=threads)
        yield from predict_stretches(engine, data, engine.schema, progress)
        return
    left = RowsToScore(rows, processes)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moerank-scores-"))
        hands = stack.enter_context(ThreadPoolExecutor(processes - 1))
        job = {"bundle": str(bundle), "data": str(data), "folder": folder, "threads": threads}
        others = [stack.enter_context(ScoringProcess(job)) for _ in range(processes - 1)]
        parts = [hands.submit(_take_last, other, left) for other in others]
        engine = Engine(bundle, threads=threads)
        yield from predict_stretches(engine, data, engine.schema, progress, take=left.take_first)
        for part in sorted((each for of_one in parts for each in of_one.result()), key=lambda part: part.rows):
            yield from part.read()
            if progress is not None:
                progress(part.rows[1], rows)


@dataclass(frozen=True)
class _Part:
    """Rows that another process scored: a file, and what is not by row."""

    rows: Part
    file: Path
    about: Predictions

    def read(self) -> Iterator[Predictions]:
        """Its stretches; the file is gone then."""
        with pa.memory_map(str(self.file)) as source, pa.ipc.open_file(source) as reader:
            for number in range(reader.num_record_batches):
                yield self.about.of_table(pa.Table.from_batches([reader.get_batch(number)]))
        self.file.unlink()


class ScoringProcess:
    """Another process that scores what it is asked to; it is ended with the context, whatever it does then.

    It imports what scoring needs and nothing of the program that called: that took it seconds.
    """

    def __init__(self, job: Message) -> None:
        """Start it."""
        own, given = socket.socketpair()
        # Not the directory that the caller happens to stand in, but all that the caller imports from.
        command = [sys.executable, "-P", "-m", _WORKER, str(given.fileno())]
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        with given:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[given.fileno()], env=os.environ | {"PYTHONPATH": paths}
            )
        self._channel = ProcessChannel(own)
        self._channel.send(job)
        self._answers = self._channel.messages()

    def score(self, rows: Part) -> _Part:
        """Have a stretch scored.

        Raises:
            MoerankError: what the other process raised, or that it ended.
        """
        self._channel.send({"rows": rows})
        answer = next(self._answers, None)
        if answer is None:
            code = self._process.wait()
            message = f"a scoring process ended with code {code}; if memory was short, use fewer --processes"
            raise PredictionError(message)
        if "failed" in answer:
            raise raised_elsewhere(answer["reason"], answer["failed"], PredictionError)
        return _Part(rows, Path(answer["file"]), Predictions.nothing(answer["about"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()


def _take_last(other: ScoringProcess, left: RowsToScore) -> list[_Part]:
    """Let another process score rows from the back until there are none."""
    parts = []
    try:
        while (rows := left.take_last()) is not None:
            parts.append(other.score(rows))
    except BaseException:
        left.stop()
        raise
    return parts
