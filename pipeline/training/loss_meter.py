"""Running sums of an epoch's losses, which also notice when training breaks down.

Shape legend: T tasks.
"""

import torch
from torch import Tensor

from contract.errors import TrainingError
from contract.schema import TaskSpec
from models.losses import Losses

CHECK_EVERY = 16
"""Steps between checks for losses that are not finite, each of which waits for the device."""


class LossTally:
    """Means of total, tasks and penalties over the steps since the epoch began."""

    def __init__(self, tasks: tuple[TaskSpec, ...], device: torch.device) -> None:
        """Start from no steps."""
        self._names = [task.name for task in tasks]
        self._total = torch.zeros((), device=device)
        self._tasks_T = torch.zeros(len(tasks), device=device)
        self._penalties: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, losses: Losses) -> None:
        """Count one step's losses.

        Raises:
            TrainingError: one of the last `CHECK_EVERY` losses was not finite.
        """
        self._total += losses.total.detach()
        self._tasks_T += losses.tasks_T.detach()
        for name, penalty in losses.penalties.items():
            self._penalties[name] = self._penalties.get(name, torch.zeros_like(self._total)) + penalty.detach()
        self.steps += 1
        if self.steps % CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Refuse to go on with losses that are not finite.

        Raises:
            TrainingError: naming the losses.
        """
        if bool(torch.isfinite(self._total)):
            return
        means = {**self.tasks(), **self.penalties()}
        broken = [name for name, mean in means.items() if not torch.isfinite(torch.tensor(mean))] or ["total"]
        message = (
            f"the loss of {', '.join(broken)} is not finite after {self.steps} steps of this epoch; lower the learning "
            "rates, or set train.gradient_clip; the last checkpoint is untouched"
        )
        raise TrainingError(message)

    @property
    def total(self) -> float:
        """Mean total loss."""
        return float(self._total) / max(self.steps, 1)

    def tasks(self) -> dict[str, float]:
        """Mean loss by task."""
        return {n: v / max(self.steps, 1) for n, v in zip(self._names, self._tasks_T.tolist(), strict=True)}

    def penalties(self) -> dict[str, float]:
        """Mean weighted penalties by name."""
        return {name: float(value) / max(self.steps, 1) for name, value in self._penalties.items()}
