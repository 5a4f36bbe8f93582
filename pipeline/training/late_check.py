"""Whether a step was finite: decided on the device at once, told to the host a step later.

A host that asks a card for a number waits until the card has done all it was given, and the card then waits for the
host. So a step that is not finite moves nothing, by flags that stay on the card, and the host reads a step's flag when
it has handed out the next.

Shape legend: B rows, D columns of the input matrix, P parameters.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from contract.inputs import Batch
from models.losses import Losses


class StepFlags(NamedTuple):
    """What a step knows of itself: whether `all` was finite, its `loss`, and where its gradients were not.

    `norms_P` are the parameters' gradient norms, `rows_B` whether each row's gradient at the input matrix is finite.
    """

    all: Tensor
    loss: Tensor
    norms_P: Tensor
    rows_B: Tensor | None


class PastStep(NamedTuple):
    """A step whose flags the host has not read yet."""

    step: int
    batch: Batch
    flags: StepFlags
    wishes: Tensor


class Guard:
    """Lets no gradient that is not finite reach the tables, which are updated inside the backward pass."""

    def __init__(self, loss: Tensor) -> None:
        """Begin with whether the loss is finite."""
        self.good, self.rows_B = loss, None

    rows_B: Tensor | None

    def __call__(self, gradient_BD: Tensor) -> Tensor:
        """The gradient at the input matrix, or zeros."""
        self.rows_B = gradient_BD.isfinite().all(1)
        self.good = self.good & self.rows_B.all()
        return torch.where(self.good, gradient_BD, torch.zeros_like(gradient_BD))

    def flags(self, loss: Tensor, gradients: list[Tensor]) -> StepFlags:
        """What is known after the backward pass; the ranks agree on the whole."""
        # As `torch.nn.utils.get_total_norm` has them, before it joins them.
        norms_P = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001 no public name gives norms one by one
        good = self.good & norms_P.isfinite().all()
        if dist.get_world_size() > 1:
            bad = (~good).float()
            dist.all_reduce(bad)
            good = bad == 0
        return StepFlags(good, loss, norms_P, self.rows_B)


class LateCheck:
    """Keeps one step's flags until the next one has been handed out."""

    def __init__(self) -> None:
        self._past: tuple[PastStep, Tensor, Tensor, torch.cuda.Event | None] | None = None

    def exchange(self, now: PastStep | None) -> tuple[PastStep | None, tuple[bool, bool]]:
        """Take a step's flags and give those of the one before, if it was bad, and the ranks' wishes then."""
        past, self._past = self._past, None
        if now is not None:
            # From a card, into pinned memory: the host goes on at once.
            good, wishes = (each.to("cpu", non_blocking=True) for each in (now.flags.all, now.wishes))
            self._past = now, good, wishes, _recorded(now.flags.all)
        if past is None:
            return None, (False, False)
        step, told, asked, arrived = past
        if arrived is not None:
            arrived.synchronize()
        stop, save = asked.numpy().tolist()
        return (None if told.numpy() else step), (stop > 0, save > 0)


def zero_unless(good: Tensor, losses: Losses) -> Losses:
    """The losses for the tally: none of a step that moved nothing."""

    def kept(value: Tensor) -> Tensor:
        return torch.where(good, value.detach(), torch.zeros_like(value))

    penalties = {name: kept(penalty) for name, penalty in losses.penalties.items()}
    return Losses(kept(losses.total), kept(losses.tasks_T), penalties)


def _recorded(tensor: Tensor) -> torch.cuda.Event | None:
    if not tensor.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    return event
