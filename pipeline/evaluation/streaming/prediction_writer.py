"""Write predictions while they pass."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from features.source.parquet_files import AtomicWriter
from pipeline.evaluation.predictions import Predictions


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
