"""The training loss: per-task losses over the rows a task applies to, task weights and gate penalties.

Shape legend: B rows, T tasks.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.ranker_tensors import RankerOutput


class Losses(NamedTuple):
    """The total to minimise and its parts: `tasks_T` unweighted, `penalties` by name."""

    total: Tensor
    tasks_T: Tensor
    penalties: dict[str, Tensor]


class RankingLoss(nn.Module):
    """Binary cross-entropy, and squared error in units of the task's spread, each a weighted mean over rows.

    A row of weight 0 for a task does not count for it; a task with no row in the batch has loss 0.
    """

    binary_T: Tensor
    base_T: Tensor
    spread_T: Tensor
    task_weights_T: Tensor

    def __init__(self, tasks: tuple[TaskSpec, ...], task_weights: Mapping[str, float] | None = None) -> None:
        """Weigh tasks by name (1 where not named).

        Raises:
            ConfigError: a weight for a task that does not exist.
        """
        super().__init__()
        weights = dict(task_weights or {})
        names = [task.name for task in tasks]
        if unknown := sorted(set(weights) - set(names)):
            message = f"task_weights names {', '.join(unknown)}; the tasks are: {', '.join(names)}"
            raise ConfigError(message)
        self.register_buffer("binary_T", torch.tensor([task.kind == "binary" for task in tasks]))
        self.register_buffer("base_T", torch.tensor([task.base_rate for task in tasks]))
        self.register_buffer("spread_T", torch.tensor([max(task.spread, 1e-6) for task in tasks]))
        self.register_buffer("task_weights_T", torch.tensor([weights.get(name, 1.0) for name in names]))

    def forward(self, output: RankerOutput, labels_BT: Tensor, weights_BT: Tensor) -> Losses:
        """The loss of one batch; labels of masked-out entries are never read (they may be anything, NaN too)."""
        masked = weights_BT == 0
        labels = labels_BT.masked_fill(masked, 0.0)
        logits = output.logits_BT
        entropy = functional.binary_cross_entropy_with_logits(logits, labels.clamp(0.0, 1.0), reduction="none")
        squared = (logits - (labels - self.base_T) / self.spread_T).square()
        each = torch.where(self.binary_T, entropy, squared).masked_fill(masked, 0.0)
        tasks = (each * weights_BT).sum(dim=0) / weights_BT.sum(dim=0).clamp(min=1e-12)
        total = (tasks * self.task_weights_T).sum()
        for penalty in output.penalties.values():
            total = total + penalty
        return Losses(total, tasks, output.penalties)
