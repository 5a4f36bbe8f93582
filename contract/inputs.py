"""The model's inputs as NumPy arrays: what encoding makes, batches carry and the graph takes.

Shape legend: R requests, N candidate rows, F id features, L id-list features, D dense features, V packed ids, T tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PartName = Literal["request", "candidate"]
PARTS: tuple[PartName, PartName] = ("request", "candidate")


@dataclass(frozen=True)
class PartInputs:
    """One part's encoded columns, in the schema's order.

    `ids` int64 [rows, F]; `list_values` int64 [V], packed feature by feature and then row by row (the order of a
    KeyedJaggedTensor); `list_lengths` int64 [L, rows]; `dense` float32 [rows, D], never NaN.
    """

    ids: NDArray[np.int64]
    list_values: NDArray[np.int64]
    list_lengths: NDArray[np.int64]
    dense: NDArray[np.float32]

    @property
    def rows(self) -> int:
        """How many rows this part has."""
        return int(self.ids.shape[0])


@dataclass(frozen=True)
class Inputs:
    """Both parts; `request` has one row (serving) or as many as `candidate` (training, evaluation)."""

    request: PartInputs
    candidate: PartInputs

    def arrays(self) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
        """All arrays by the graph's input names: ``request_ids``, ``candidate_dense`` and so on."""
        request, candidate = self.request, self.candidate
        return {
            "request_ids": request.ids,
            "request_list_values": request.list_values,
            "request_list_lengths": request.list_lengths,
            "request_dense": request.dense,
            "candidate_ids": candidate.ids,
            "candidate_list_values": candidate.list_values,
            "candidate_list_lengths": candidate.list_lengths,
            "candidate_dense": candidate.dense,
        }


@dataclass(frozen=True)
class Batch:
    """Rows to train or evaluate on: `labels` and `weights` float32 [N, T] (weight 0: not applicable).

    `user` and `item` are the stable uint64 hashes [N] of the row's keys, for grouping; `time` is when its event was,
    int64 [N] milliseconds since 1970, where the reader was asked for it.
    """

    inputs: Inputs
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """How many rows the batch has."""
        return int(self.labels.shape[0])

    def between(self, begin: int, end: int) -> "Batch":
        """A stretch of the rows, without copying.

        Raises:
            ValueError: the rows have lists, which are packed by feature.
        """
        parts = self.inputs.request, self.inputs.candidate
        if any(len(part.list_lengths) for part in parts):
            message = "a batch with lists cannot be cut without copying"
            raise ValueError(message)
        request, candidate = (
            PartInputs(p.ids[begin:end], p.list_values, p.list_lengths[:, begin:end], p.dense[begin:end]) for p in parts
        )
        return Batch(
            Inputs(request, candidate),
            self.labels[begin:end],
            self.weights[begin:end],
            self.user[begin:end],
            self.item[begin:end],
            None if self.time is None else self.time[begin:end],
        )


@dataclass(frozen=True)
class Stretch:
    """Consecutive batches in one, `sizes` of rows each."""

    rows: Batch
    sizes: tuple[int, ...]

    def batches(self) -> Iterator[tuple[Batch, int, int]]:
        """Each batch, and which rows of the stretch it has."""
        if len(self.sizes) == 1:
            yield self.rows, 0, self.rows.rows
            return
        end = 0
        for size in self.sizes:
            begin, end = end, end + size
            yield self.rows.between(begin, end), begin, end
