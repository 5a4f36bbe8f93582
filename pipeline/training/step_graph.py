"""A step of training as one CUDA graph: one launch in place of some hundreds, on batches that have the same size.

A small batch's step on a card is launches of small kernels. Captured once, with all that it reads at fixed places, it
is replayed for each further batch, whose tensors are copied there first. What depends on the step's number (the rates
of learning, the seed of dropout) lies on the card or is set before the replay.
"""

from collections.abc import Callable, Hashable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from contract.errors import TrainingError
from models.gates import Gate
from models.gates.dense_to_sparse import DenseToSparseGate
from models.partial_steps import fits
from models.sharding import Sharded
from pipeline.training.dense_form import changes_with_the_step
from pipeline.training.device_copies import BatchTensors
from pipeline.training.late_check import Moved
from pipeline.training.train_config import TrainConfig

WARM = 3
"""Steps launched one by one before one is captured: optimisers make their state, libraries choose their kernels."""
Move = Callable[[BatchTensors], Moved]


class StepGraph:
    """Runs a step as it is, then captured; what it answers is overwritten by the next one."""

    def __init__(self, device: torch.device) -> None:
        """On a processor, which has no graphs, a step is run again and again on the same places."""
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.forget()

    def forget(self) -> None:
        """Something else has changed that a step reads: it is captured anew."""
        self._kind: Hashable = None
        self._met = 0
        self._places: _Places | None = None
        self._replay: Callable[[], Moved] | None = None

    def __call__(self, move: Move, tensors: BatchTensors, kind: Hashable) -> Moved:
        """Take a step, or the one that was captured in its place; those of another `kind` are other graphs.

        A step must read nothing but a batch's tensors and what keeps its place.

        Raises:
            TrainingError: the step cannot be captured.
        """
        if kind != self._kind:
            self.forget()
            self._kind = kind
        self._met += 1
        if self._met <= WARM:
            return self._aside(partial(move, tensors))
        if self._places is None or self._replay is None:
            self._places = _Places(tensors)
            self._replay = self._captured(partial(move, self._places.tensors))
        self._places.take(tensors)
        return self._replay()

    def _aside(self, work: Callable[[], Moved]) -> Moved:
        """Work on the stream that captures: what it leaves behind must not be tied to another one."""
        if self._stream is None:
            return work()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            moved = work()
        current.wait_stream(self._stream)
        return moved

    def _captured(self, move: Callable[[], Moved]) -> Callable[[], Moved]:
        if self._stream is None:
            return move
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread pins memory and copies the next batch meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                moved = move()
        except RuntimeError as error:
            message = (
                f"a training step cannot be captured as a CUDA graph: {str(error).strip().splitlines()[0]}; "
                "set train.capture: off"
            )
            raise TrainingError(message) from error

        def replay() -> Moved:
            graph.replay()
            return moved

        return replay


def obstacle(sharded: Sharded, config: TrainConfig, device: torch.device, *, teacher: bool) -> str | None:
    """What stands against capturing a model's step, in words; to be asked under the step's autocast."""
    ranker = sharded.ranker
    reasons = {
        "ranks exchange gradients": dist.get_world_size() > 1,
        "lists are of another length in each batch": any(layout.lists for layout in ranker.layouts),
        "the host looks up a teacher's answers": teacher,
        "rows of one user are compared": bool(config.within_user),
        "a gate changes with the step": any(map(_changes_within_training, ranker.network.typed_gates)),
        "the host asks which rows selected an expert, by model.sparse_training: on": (
            any(level.selects_rows(device.type) for level in ranker.network.typed_levels)
        ),
        "tables are of several widths, or lie in the host's memory": (
            ranker.embeddings is not None and not fits(ranker.embeddings)
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _changes_within_training(gate: Gate) -> bool:
    # One that switches once may well be compiled, twice; a graph would repeat what it was before.
    return changes_with_the_step(gate) or isinstance(gate, DenseToSparseGate)


class _Places:
    """Where a batch's tensors lie each time."""

    def __init__(self, tensors: BatchTensors) -> None:
        self.tensors = tensors.mapped(torch.clone)
        alike: dict[torch.dtype, list[int]] = {}
        for number, tensor in enumerate(self.tensors.tensors()):
            if tensor.numel():
                alike.setdefault(tensor.dtype, []).append(number)
        self._alike = [(numbers, self._some(self.tensors, numbers)) for numbers in alike.values()]

    def take(self, tensors: BatchTensors) -> None:
        """Copy a batch's tensors there, with one launch for each type of number."""
        for numbers, places in self._alike:
            torch._foreach_copy_(places, self._some(tensors, numbers))

    @staticmethod
    def _some(tensors: BatchTensors, numbers: list[int]) -> list[Tensor]:
        every = tensors.tensors()
        return [every[number] for number in numbers]
