"""A batch's way to the card in three stages at once: read | copied on a stream of its own | trained on.

While the host launches a step, threads read the next batches, move them into pinned memory and send them on their way;
the step then waits for its copy on the card. On the CPU a batch's arrays are used where they lie.

Shape legend: B rows, T tasks.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from contract.inputs import Batch, Stretch
from features.read_ahead import prepared_ahead
from models.ranker_tensors import TensorInputs

ROWS_AT_ONCE = 65_536
"""Rows that are sent to a card at a time, of as many batches as they make."""
_ALIGNED = 256
"""As torch's own allocator has it, for kernels that read several numbers at once."""


class BatchTensors(NamedTuple):
    """What a step reads of a batch, on its device; `users_B` are the rows' users as they were hashed, if wanted."""

    inputs: TensorInputs
    labels_BT: Tensor
    weights_BT: Tensor
    users_B: Tensor | None

    @classmethod
    def of(cls, batch: Batch, *, users: bool) -> "BatchTensors":
        """Wrap a batch's arrays without copying, but for the users."""
        users_B = torch.from_numpy(batch.user.view(np.int64).copy()) if users else None
        labels, weights = torch.from_numpy(batch.labels), torch.from_numpy(batch.weights)
        return cls(TensorInputs.from_numpy(batch.inputs), labels, weights, users_B)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "BatchTensors":
        """The same with each tensor changed."""
        request, candidate = (type(part)(*map(change, part)) for part in self.inputs)
        users_B = None if self.users_B is None else change(self.users_B)
        return BatchTensors(TensorInputs(request, candidate), change(self.labels_BT), change(self.weights_BT), users_B)

    def to(self, device: torch.device) -> "BatchTensors":
        """The same on another device; from pinned memory without waiting for the copy."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def between(self, begin: int, end: int) -> "BatchTensors":
        """A stretch of rows without lists."""
        request, candidate = (
            type(p)(p.ids_NF[begin:end], p.list_values_V, p.list_lengths_LN[:, begin:end], p.dense_ND[begin:end])
            for p in self.inputs
        )
        users_B = None if self.users_B is None else self.users_B[begin:end]
        return BatchTensors(
            TensorInputs(request, candidate), self.labels_BT[begin:end], self.weights_BT[begin:end], users_B
        )

    def tensors(self) -> list[Tensor]:
        """All of them."""
        users = [] if self.users_B is None else [self.users_B]
        return [*self.inputs.request, *self.inputs.candidate, self.labels_BT, self.weights_BT, *users]


class Packed(NamedTuple):
    """A batch's tensors in one piece of memory: one allocation, one copy."""

    memory: Tensor
    tensors: BatchTensors

    @classmethod
    def of_batch(cls, tensors: BatchTensors, *, pinned: bool) -> "Packed":
        """The same numbers; `pinned`: in memory that a card copies from without waiting."""
        size = sum(map(_room, tensors.tensors()))
        packed = cls(torch.empty(size, dtype=torch.uint8, pin_memory=pinned), tensors).of(None)
        for place, tensor in zip(packed.tensors.tensors(), tensors.tensors(), strict=True):
            place.copy_(tensor)
        return packed

    def of(self, memory: Tensor | None) -> "Packed":
        """Where these tensors lie in other memory that holds the same bytes; None: in this one."""
        within, begin = self.memory if memory is None else memory, 0

        def place(tensor: Tensor) -> Tensor:
            nonlocal begin
            own = within[begin : begin + tensor.nbytes]
            begin += _room(tensor)
            return own.view(tensor.dtype).view(tensor.shape)

        return Packed(within, self.tensors.mapped(place))


class _Copy(NamedTuple):
    """Batches on their way: their tensors on the card, what they are copied from, and when they have arrived."""

    stretch: Stretch
    sent: Packed
    source: Packed
    arrived: torch.cuda.Event


class _PartOfCopy(NamedTuple):
    """A batch of a copy: the rows from `begin` until before `end`."""

    batch: Batch
    copy: _Copy
    begin: int
    end: int


class DeviceCopies:
    """Copies batches ahead of the step."""

    def __init__(self, device: torch.device, *, users: bool = False) -> None:
        """Copy to a device; on the CPU there is nothing to copy. `users`: the rows' users go along."""
        self._device, self._users = device, users
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.rows = 1 if self._stream is None else ROWS_AT_ONCE
        """How many rows should come at a time: small batches cost the host as much as large ones."""
        self._part: _PartOfCopy | None = None
        """The batch that was handed out last."""

    def ahead(self, stretches: Iterator[Stretch]) -> Iterator[Batch]:
        """Their batches in the same order, each when the next ones are on their way."""
        if self._stream is None:
            for stretch in stretches:
                for batch, _, _ in stretch.batches():
                    yield batch
            return
        for copy in prepared_ahead(stretches, partial(self._begin, self._stream), at_once=2):
            for batch, begin, end in copy.stretch.batches():
                self._part = _PartOfCopy(batch, copy, begin, end)
                yield batch

    def take(self, batch: Batch) -> BatchTensors:
        """A batch's tensors on the device; those of a batch that was not on its way are copied now."""
        if self._stream is None:
            return BatchTensors.of(batch, users=self._users)
        part, self._part = self._part, None
        if part is None or part.batch is not batch:
            return BatchTensors.of(batch, users=self._users).to(self._device)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(part.copy.arrived)
        # Made on the other stream, whose allocator must know that this one still reads it.
        part.copy.sent.memory.record_stream(current)
        tensors = part.copy.sent.tensors
        return tensors if len(part.copy.stretch.sizes) == 1 else tensors.between(part.begin, part.end)

    def _begin(self, stream: torch.cuda.Stream, stretch: Stretch) -> _Copy:
        # A thread's own device is the first one, on which memory would be locked for another rank's card.
        with torch.cuda.stream(stream):
            source = Packed.of_batch(BatchTensors.of(stretch.rows, users=self._users), pinned=True)
            sent = source.of(source.memory.to(self._device, non_blocking=True))
            arrived = torch.cuda.Event()
            arrived.record(stream)
        return _Copy(stretch, sent, source, arrived)


def _room(tensor: Tensor) -> int:
    """Bytes that a tensor takes where each begins at a multiple of `_ALIGNED`."""
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED
