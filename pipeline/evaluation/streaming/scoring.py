"""Score encoded rows in several processes, and write predictions while they pass."""

import functools
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from features.source.parquet_files import AtomicWriter
from pipeline.evaluation.predictions import (
    BATCH_ROWS,
    STRETCH_BATCHES,
    Predictions,
    Progress,
    joined,
    predict_stretches,
)
from pipeline.evaluation.streaming.rows_to_score import RowsToScore
from serving.graph.engine import Engine

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
    engine = Engine(bundle, threads=threads)
    if processes == 1:
        yield from predict_stretches(engine, data, engine.schema, progress)
        return
    # A forked child would inherit the threads' locks of Arrow and onnxruntime.
    context, left = multiprocessing.get_context("spawn"), RowsToScore(rows, processes)
    with (
        tempfile.TemporaryDirectory(prefix="moerank-scores-") as folder,
        ProcessPoolExecutor(processes - 1, context) as pool,
        ThreadPoolExecutor(processes - 1) as hands,
    ):
        others = [
            hands.submit(_take_last, pool, left, _Job(bundle, data, Path(folder), threads))
            for _ in range(processes - 1)
        ]
        try:
            yield from predict_stretches(engine, data, engine.schema, progress, take=left.take_first)
            parts = sorted((part for other in others for part in other.result()), key=lambda part: part.rows)
        except BaseException:
            # Nobody reads what is left.
            left.back = left.front
            raise
        for part in parts:
            yield from part.read()
            if progress is not None:
                progress(part.rows[1], rows)


@dataclass(frozen=True)
class _Job:
    """What another process needs to know beside its rows."""

    bundle: Path
    data: Path
    folder: Path
    threads: int


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


def _take_last(pool: ProcessPoolExecutor, left: RowsToScore, job: _Job) -> list[_Part]:
    """Let another process score rows from the back until there are none."""
    parts = []
    while (rows := left.take_last()) is not None:
        parts.append(pool.submit(_score_part, job, rows).result())
    return parts


@functools.cache
def _engine(bundle: Path, threads: int) -> Engine:
    """Loaded once a process."""
    return Engine(bundle, threads=threads)


def _score_part(job: _Job, rows: Part) -> _Part:
    """Write a stretch's predictions to disk."""
    engine = _engine(job.bundle, job.threads)
    stretch = joined(list(predict_stretches(engine, job.data, engine.schema, rows=rows)))
    table, file = stretch.table(), job.folder / f"{rows[0]}.arrow"
    with pa.ipc.new_file(str(file), table.schema) as sink:
        sink.write_table(table, max_chunksize=STRETCH_BATCHES * BATCH_ROWS)
    return _Part(rows, file, Predictions.nothing(stretch.about()))


class PredictionWriter:
    """Write ``predictions.parquet`` a stretch at a time, in a thread; it appears when all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: AtomicWriter | None = None
        self._hand = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def write(self, rows: Predictions) -> None:
        """Append rows, while the caller goes on; what went wrong with earlier rows is raised now."""
        if self._written is not None:
            self._written.result()
        self._written = self._hand.submit(self._append, rows.table())

    def _append(self, table: pa.Table) -> None:
        if self._writer is None:
            # Only now: what is refused leaves no directory behind.
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = AtomicWriter(self._path, table.schema).__enter__()
        self._writer.write(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hand.shutdown()
        failed = None if self._written is None else self._written.exception()
        problem = error or failed
        if self._writer is not None:
            self._writer.__exit__(None if problem is None else type(problem), problem, trace)
        if failed is not None and error is None:
            raise failed
