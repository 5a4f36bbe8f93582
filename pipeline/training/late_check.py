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
    """What a step knows of itself, side by side: whether all was finite, and where it was not.

    `told` [2 + P + B], bool: all of it; the loss; each parameter's gradient; each row's gradient at the input matrix.
    """

    told: Tensor
    parameters: int

    @property
    def all(self) -> Tensor:
        """Whether the step moved anything."""
        return self.told[0]

    @property
    def loss(self) -> Tensor:
        """Whether the loss was finite."""
        return self.told[1]

    @property
    def gradients(self) -> Tensor:
        """Whether each parameter's gradient was."""
        return self.told[2 : 2 + self.parameters]

    @property
    def rows(self) -> Tensor:
        """Whether each row's gradient at the input matrix was; empty if nothing there is trained."""
        return self.told[2 + self.parameters :]


class Moved(NamedTuple):
    """What a step leaves on the device: its losses, 0 if it was not finite, its flags, and what the ranks wish."""

    losses: Losses
    flags: StepFlags
    wishes: Tensor


class PastStep(NamedTuple):
    """A step whose flags the host has not read yet, or has, from the host's memory."""

    step: int
    batch: Batch
    flags: StepFlags


class Guard:
    """Lets no gradient that is not finite reach the tables, which are updated inside the backward pass."""

    def __init__(self, loss: Tensor) -> None:
        """Begin with whether the loss is finite."""
        self.good, self.rows_B = loss, None

    rows_B: Tensor | None

    def __call__(self, gradient_BD: Tensor) -> Tensor:
        """The gradient at the input matrix, or zeros."""
        # A row's largest number is finite if all are, and one pass finds it.
        self.rows_B = torch.linalg.vector_norm(gradient_BD, torch.inf, dim=1).isfinite()
        self.good = self.good & self.rows_B.all()
        return torch.where(self.good, gradient_BD, 0.0)

    def flags(self, loss: Tensor, gradients: list[Tensor]) -> StepFlags:
        """What is known after the backward pass; the ranks agree on the whole."""
        # As `torch.nn.utils.get_total_norm` has them, before it joins them.
        norms_P = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001 no public name gives norms one by one
        finite_P = norms_P.isfinite()
        good = self.good & finite_P.all()
        if dist.get_world_size() > 1:
            bad = (~good).float()
            dist.all_reduce(bad)
            good = bad == 0
        rows = [] if self.rows_B is None else [self.rows_B]
        return StepFlags(torch.cat([good.reshape(1), loss.reshape(1), finite_P, *rows]), len(gradients))


class LateCheck:
    """Keeps one step's flags until the next one has been handed out."""

    def __init__(self) -> None:
        self._past: tuple[PastStep, Tensor, torch.cuda.Event | None] | None = None

    def exchange(self, now: PastStep | None, wishes: Tensor | None = None) -> tuple[PastStep | None, tuple[bool, bool]]:
        """Take a step's flags and give those of the one before, if it was bad, and the ranks' wishes then."""
        past, self._past = self._past, None
        if now is not None and wishes is not None:
            # From a card, into pinned memory: the host goes on at once.
            told, asked = (each.to("cpu", non_blocking=True) for each in (now.flags.told, wishes))
            past_step = now._replace(flags=now.flags._replace(told=told))
            self._past = past_step, asked, _recorded(now.flags.told)
        if past is None:
            return None, (False, False)
        step, asked, arrived = past
        if arrived is not None:
            arrived.synchronize()
        stop, save = asked.numpy().tolist()
        return (None if step.flags.all.numpy() else step), (stop > 0, save > 0)


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
