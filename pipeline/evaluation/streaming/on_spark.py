"""The same pass on a Spark cluster: each partition becomes a state, and the driver merges the states.

Spark only moves rows and states; every number is computed by the functions that run on one machine.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from features.source.spark_session import start_spark
from pipeline.evaluation.list_keys import by_lists
from pipeline.evaluation.prediction_file import Columns, from_table
from pipeline.evaluation.streaming.stream_state import Budget, StreamState

_STATE = "state"


@dataclass(frozen=True)
class _PartitionPass:
    """What an executor does with the rows of one partition."""

    columns: Columns | None
    budget: Budget
    lists_by: str
    partition: Callable[[], int]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Partitions hold fewer than 2**40 rows, so rows of all of them have numbers of their own.
        state = StreamState(self.budget, first_row=self.partition() << 40)
        tables = (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
        rows = (from_table(table, self.columns, "the data frame") for table in tables)
        for stretch in by_lists(rows, self.lists_by):
            state.update(stretch)
        yield pa.RecordBatch.from_pydict({_STATE: pa.array([state.to_bytes()], type=pa.binary())})


@contextmanager
def spark_session(master: str) -> Iterator[Any]:
    """A session on a cluster whose executors import this very installation, as those of ``local[N]`` do.

    Raises:
        ConfigError: PySpark is not installed.
    """
    settings: dict[str, str] = {}
    if master.startswith("local"):
        # Whatever the network, this machine speaks to itself; its Python processes find what this one finds.
        settings = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
                    "spark.pyspark.python": sys.executable,
                    "spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    session = start_spark(master, "moerank evaluate", settings, "--engine is spark")
    try:
        yield session
    finally:
        session.stop()


def pass_on_spark(
    frame: Any, columns: Columns | None = None, budget: Budget | None = None, lists_by: str = "user"
) -> StreamState:
    """The state of all rows of a Spark data frame of labels and scores.

    Args:
        frame: A `pyspark.sql.DataFrame`, with columns as `load_predictions` reads them.
        columns: What its columns are called.
        budget: What the merged state may keep; each partition keeps no more.
        lists_by: What is ranked together: ``user`` or ``item``; a column is mapped as ``list``.

    Raises:
        DataError: a column is missing.

    Example::

        state = pass_on_spark(spark.read.parquet("hdfs:///scores/2026-11-26"))
        rows, _ = state.users.finish()
        measure(rows, Context("ranker/7", "26 November", {}), config, Path("evaluation"), state)
    """
    from pyspark import TaskContext  # noqa: PLC0415 - an optional extra

    budget = budget or Budget()
    work = _PartitionPass(columns, budget, lists_by, lambda: int(TaskContext.get().partitionId()))
    # A missing column is an error of the driver, not of an executor far away.
    from_table(frame.limit(1).toArrow(), columns, "the data frame")
    merged = StreamState(budget)
    for row in frame.mapInArrow(work, f"{_STATE} binary").toLocalIterator():
        merged.merge(StreamState.from_bytes(bytes(row[_STATE])))
    return merged
