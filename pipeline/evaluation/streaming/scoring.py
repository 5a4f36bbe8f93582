"""Score encoded rows in several processes, and write predictions while they pass."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from features.source.parquet_files import AtomicWriter
from pipeline.evaluation.predictions import Predictions, Progress, part_bounds, predict_stretches
from serving.graph.engine import Engine

_PARTS = 4
"""Parts of the rows that each process scores, so that none waits long for another."""


def score(
    bundle: Path, data: Path, rows: int, *, processes: int = 1, threads: int = 1, progress: Progress | None = None
) -> Iterator[Predictions]:
    """As `predict_stretches`, in any number of processes; the rows come in the order of reading.

    Raises:
        MoerankError: as `predict_stretches`.
    """
    if processes == 1:
        engine = Engine(bundle, threads=threads)
        yield from predict_stretches(engine, data, engine.schema, progress)
        return
    parts = processes * _PARTS
    # A forked child would inherit the threads' locks of Arrow and onnxruntime.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="moerank-scores-") as folder:
        files = [Path(folder) / f"{number}.arrow" for number in range(parts)]
        jobs = [(bundle, data, (number, parts), file, threads) for number, file in enumerate(files)]
        with ProcessPoolExecutor(processes, context) as pool:
            for number, kinds in enumerate(pool.map(_score_part, *zip(*jobs, strict=True))):
                yield from _read(files[number], kinds)
                if progress is not None:
                    progress(part_bounds(rows, (number, parts))[1], rows)


def _score_part(bundle: Path, data: Path, part: tuple[int, int], out: Path, threads: int) -> Predictions | None:
    """Write a part's predictions, and return what is not by row; None where the part has no rows."""
    engine = Engine(bundle, threads=threads)
    about = None
    for stretch in predict_stretches(engine, data, engine.schema, None, part):
        table = stretch.table()
        if about is None:
            about = Predictions.nothing(stretch.about())
            sink = pa.ipc.new_file(str(out), table.schema)
        sink.write_table(table, max_chunksize=len(table))
    if about is not None:
        sink.close()
    return about


def _read(file: Path, about: Predictions | None) -> Iterator[Predictions]:
    if about is None:
        return
    with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            yield about.of_table(pa.Table.from_batches([reader.get_batch(number)]))
    file.unlink()


class PredictionWriter:
    """Write ``predictions.parquet`` a stretch at a time; it appears when all went well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: AtomicWriter | None = None

    def write(self, rows: Predictions) -> None:
        """Append rows."""
        table = rows.table()
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
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
