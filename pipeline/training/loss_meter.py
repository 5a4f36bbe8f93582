"""Running sums of an epoch's losses.

Shape legend: T tasks.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses


class LossMeter:
    """Means of total, tasks and penalties over the steps since the epoch began."""

    def __init__(self, tasks: tuple[TaskSpec, ...], device: torch.device) -> None:
        self._names = [task.name for task in tasks]
        self._total = torch.zeros((), device=device)
        self._tasks_T = torch.zeros(len(tasks), device=device)
        self._penalties: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, losses: Losses) -> None:
        """Count one step's losses."""
        self._total += losses.total.detach()
        self._tasks_T += losses.tasks_T.detach()
        for name, penalty in losses.penalties.items():
            self._penalties[name] = self._penalties.get(name, torch.zeros_like(self._total)) + penalty.detach()
        self.steps += 1

    def leave_out(self) -> None:
        """A step that was counted with losses of 0 does not count."""
        self.steps -= 1

    def join_ranks(self) -> None:
        """Take the mean over ranks, whose losses are shares of the batches'; each rank must call it."""
        if dist.get_world_size() == 1:
            return
        names = sorted(self._penalties)
        sums = torch.cat([self._total.reshape(1), self._tasks_T, *(self._penalties[n].reshape(1) for n in names)])
        dist.all_reduce(sums)
        total, tasks_T, penalties = (sums / dist.get_world_size()).split([1, len(self._names), len(names)])
        self._total, self._tasks_T = total.reshape(()), tasks_T
        self._penalties = dict(zip(names, penalties.unbind(), strict=True))

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
