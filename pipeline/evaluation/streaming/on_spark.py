"""The same pass on a Spark cluster: each partition becomes a state, and the driver merges the states.

Spark only moves rows and states; every number is computed by the functions that run on one machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.evaluation.prediction_file import Columns, from_table
from pipeline.evaluation.streaming.stream_state import Budget, StreamState

_STATE = "state"


@dataclass(frozen=True)
class _PartitionPass:
    """What an executor does with the rows of one partition."""

    columns: Columns | None
    budget: Budget
    partition: Callable[[], int]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Partitions hold fewer than 2**40 rows, so rows of all of them have numbers of their own.
        state = StreamState(self.budget, first_row=self.partition() << 40)
        for batch in batches:
            if batch.num_rows:
                state.update(from_table(pa.Table.from_batches([batch]), self.columns, "the data frame"))
        yield pa.RecordBatch.from_pydict({_STATE: pa.array([state.to_bytes()], type=pa.binary())})


def pass_on_spark(frame: Any, columns: Columns | None = None, budget: Budget | None = None) -> StreamState:
    """The state of all rows of a Spark data frame of labels and scores.

    Args:
        frame: A `pyspark.sql.DataFrame`, with columns as `load_predictions` reads them.
        columns: What its columns are called.
        budget: What the merged state may keep; each partition keeps no more.

    Raises:
        DataError: a column is missing.

    Example::

        state = pass_on_spark(spark.read.parquet("hdfs:///scores/2026-11-26"))
        rows, _ = state.users.finish()
        measure(rows, Context("ranker/7", "26 November", {}), config, Path("evaluation"), state)
    """
    from pyspark import TaskContext  # noqa: PLC0415 - an optional extra

    budget = budget or Budget()
    work = _PartitionPass(columns, budget, lambda: int(TaskContext.get().partitionId()))
    # A missing column is an error of the driver, not of an executor far away.
    from_table(frame.limit(1).toArrow(), columns, "the data frame")
    merged = StreamState(budget)
    for row in frame.mapInArrow(work, f"{_STATE} binary").toLocalIterator():
        merged.merge(StreamState.from_bytes(bytes(row[_STATE])))
    return merged
