"""Runs of a graph in a few fixed sizes, over buffers that are kept: what a card needs to be fed quickly.

Candidates are padded to the next of `ROW_BUCKETS`, requests to the next of `REQUEST_BUCKETS`. Each size has buffers
of its own, in pinned host memory and on the device, and so keeps its addresses: onnxruntime can capture such a run as a
CUDA graph, whose replay spares the launches of all kernels. Runs at the same time have buffers of their own, and
onnxruntime gives them a stream each; captured graphs are replayed one at a time.

Shape legend: N candidate rows, L list features, V list values.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.graph_names import REQUEST_OF
from serving.graph.card_tables import HeldTable
from serving.graph.pinned_memory import pinned_zeros
from serving.graph.run_slots import Array, IdleSlots, RunSlot

ROW_BUCKETS = (64, 128, 256, 512, 1024, 4096)
REQUEST_BUCKETS = (1, 8, 32, 128, 512)
VALUE_BUCKETS = tuple(2**power for power in range(6, 21, 2))
"""For the values of lists, whose number no other size bounds."""
_DTYPES: dict[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


class _Sizes(NamedTuple):
    """What is padded to what."""

    candidates: int
    requests: int
    candidate_values: int
    request_values: int


_Size = tuple[_Sizes, tuple[str, ...]]
"""What a slot is for: sizes and outputs."""
_CAPTURING = threading.Lock()
"""Held by runs of sessions that capture: nothing may be allocated on the card while one of them does, and no other run
of such a session may be given the memory that a captured graph works in."""


class BucketRunner:
    """Runs a session in fixed sizes; `run` answers as ``session.run`` does."""

    def __init__(
        self,
        session: ort.InferenceSession,
        device: Literal["cpu", "cuda"],
        *,
        capture: bool = False,
        tables: Mapping[str, HeldTable] = MappingProxyType({}),
    ) -> None:
        """Run on the session's device; `capture`: the session was made with ``enable_cuda_graph``.

        `tables` are the inputs that are the same in all runs.
        """
        self._session, self._device, self.capture, self._tables = session, device, capture, tables
        self._inputs = {node.name: node for node in session.get_inputs() if node.name not in tables}
        self._outputs = {node.name: node for node in session.get_outputs()}
        self.usable = any(name.startswith("candidate") for name in self._inputs)
        """Whether answers are one for each candidate, so that padding can be cut off."""
        self.idle = IdleSlots()
        """Buffers between their runs."""
        self._captured: dict[_Size, RunSlot] = {}
        self._graphs = 0

    def run(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """The named outputs [N, ...] for arrays by input name; sizes beyond the buckets run as they are."""
        with _CAPTURING if self.capture else nullcontext():
            return self._run(outputs, arrays)

    def _run(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        sizes = self._sizes(arrays)
        if sizes is None:
            return self._run_as_is(outputs, arrays)
        size = sizes, tuple(outputs)
        if self.capture:
            if size not in self._captured:
                # A captured graph holds its addresses for good; without lists there are few sizes.
                self._captured[size] = self._new_slot(*size)
            return self._run_in(self._captured[size], outputs, arrays)
        slot = self.idle.take(size) or self._new_slot(*size)
        answers = self._run_in(slot, outputs, arrays)
        # Not after a failure, when the device may still be at work in it.
        self.idle.give_back(size, slot)
        return answers

    def _run_in(self, slot: RunSlot, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        rows = len(arrays[REQUEST_OF]) if REQUEST_OF in arrays else rows_of_part(arrays, "candidate")
        for name in self._inputs:
            slot.fill(name, arrays[name])
        self._session.run_with_iobinding(slot.binding, slot.options)
        return [slot.answers[name].numpy()[:rows].copy() for name in outputs]

    def _run_as_is(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        binding = self._session.io_binding()
        for name in self._inputs:
            binding.bind_cpu_input(name, np.ascontiguousarray(arrays[name]))
        self._bind_tables(binding)
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, _skipping(self.capture))
        answers: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
        return answers

    def _bind_tables(self, binding: Any) -> None:
        for name, table in self._tables.items():
            table.bind(binding, name)

    def _sizes(self, arrays: Mapping[str, Array]) -> _Sizes | None:
        if not self.usable:
            return None
        wanted = (
            (ROW_BUCKETS, rows_of_part(arrays, "candidate")),
            (REQUEST_BUCKETS, rows_of_part(arrays, "request")),
            (VALUE_BUCKETS, _values(arrays, "candidate")),
            (VALUE_BUCKETS, _values(arrays, "request")),
        )
        fitting = [_bucket(buckets, size) for buckets, size in wanted]
        # A request for each candidate, without an index that says so, must stay one for each.
        if REQUEST_OF not in self._inputs and wanted[1][1] > 1:
            return None
        return None if None in fitting else _Sizes(*(size or 0 for size in fitting))

    def _new_slot(self, sizes: _Sizes, outputs: tuple[str, ...]) -> RunSlot:
        binding = self._session.io_binding()
        staged: dict[str, Array] = {}
        given: dict[str, Any] = {}
        answers: dict[str, Any] = {}
        for name, node in self._inputs.items():
            staged[name], given[name] = self._buffers(_shape(name, node.shape, sizes), _DTYPES[node.type])
            binding.bind_ortvalue_input(name, given[name])
        self._bind_tables(binding)
        for name in outputs:
            node = self._outputs[name]
            shape = (sizes.candidates, *(int(size) for size in node.shape[1:]))
            answers[name] = ort.OrtValue.ortvalue_from_shape_and_type(shape, _DTYPES[node.type], self._device)
            binding.bind_ortvalue_output(name, answers[name])
        return RunSlot(staged, given, answers, binding, self._options())

    def _buffers(self, shape: tuple[int, ...], dtype: type[np.generic]) -> tuple[Array, Any]:
        if self._device == "cpu":
            array: Any = np.zeros(shape, dtype)
            return array, ort.OrtValue.ortvalue_from_numpy(array)
        return pinned_zeros(shape, dtype), ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._device)

    def _options(self) -> Any:
        options = ort.RunOptions()
        if self.capture:
            self._graphs += 1
            options.add_run_config_entry("gpu_graph_id", str(self._graphs))
        return options


def _skipping(capture: bool) -> Any:  # noqa: FBT001 the one thing that it hangs on
    options = ort.RunOptions()
    if capture:
        # A size that comes once is not worth capturing.
        options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _bucket(buckets: Sequence[int], size: int) -> int | None:
    return next((bucket for bucket in buckets if size <= bucket), None)


def rows_of_part(arrays: Mapping[str, Array], part: str) -> int:
    """How many rows the arrays of a part have; 1 where it has no columns."""
    for kind, axis in (("ids", 0), ("dense", 0), ("list_lengths", 1)):
        array = arrays.get(f"{part}_{kind}")
        if array is not None and array.shape[1 - axis]:
            return int(array.shape[axis])
    return 1


def _values(arrays: Mapping[str, Array], part: str) -> int:
    return len(arrays.get(f"{part}_list_values", ()))


def _shape(name: str, declared: Sequence[Any], sizes: _Sizes) -> tuple[int, ...]:
    """The padded shape of an input; widths are as declared."""
    part = "candidate" if name.startswith("candidate") else "request"
    rows = sizes.candidates if part == "candidate" else sizes.requests
    if name.endswith("list_values"):
        return (sizes.candidate_values if part == "candidate" else sizes.request_values,)
    if name.endswith("list_lengths"):
        return int(declared[0]), rows
    return rows, *(int(size) for size in declared[1:])
