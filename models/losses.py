"""The training loss: per-task losses over the rows a task applies to, task weights and gate penalties.

Shape legend: B rows, T tasks.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.ranker_tensors import RankerOutput

LossScale = Literal["entropy", "none"]
_LEAST_ENTROPY = 1e-3
"""About that of a base rate of 1 in 10,000: with fewer positives than that a task's gradient is mostly chance."""


class Losses(NamedTuple):
    """The total to minimise and its parts: `tasks_T` before the user's weights, `penalties` by name."""

    total: Tensor
    tasks_T: Tensor
    penalties: dict[str, Tensor]


class RankingLoss(nn.Module):
    """Each task's loss as a share of what its base rate alone would lose, a weighted mean over rows.

    Cross-entropy is divided by the entropy of the base rate (He et al. 2014, "Practical Lessons from Predicting Clicks
    on Ads at Facebook", section 3.1: normalised entropy) and squared error by the label's variance: a model that
    answers the base rate to all rows loses 1 in every task, be it as rare as it may. `scale` ``none`` leaves
    cross-entropy in nats. A row of weight 0 for a task does not count for it; a task with no row in the batch has
    loss 0.
    """

    binary_T: Tensor
    base_T: Tensor
    spread_T: Tensor
    unit_T: Tensor
    task_weights_T: Tensor

    def __init__(
        self, tasks: tuple[TaskSpec, ...], task_weights: Mapping[str, float] | None = None, scale: LossScale = "entropy"
    ) -> None:
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
        units = [base_entropy(task) if scale == "entropy" else 1.0 for task in tasks]
        self.register_buffer("unit_T", torch.tensor(units))
        self.register_buffer("task_weights_T", torch.tensor([weights.get(name, 1.0) for name in names]))

    def forward(self, output: RankerOutput, labels_BT: Tensor, weights_BT: Tensor) -> Losses:
        """The loss of one batch; labels of masked-out entries are never read (they may be anything, NaN too)."""
        masked = weights_BT == 0
        labels = labels_BT.masked_fill(masked, 0.0)
        logits = output.logits_BT
        entropy = functional.binary_cross_entropy_with_logits(logits, labels.clamp(0.0, 1.0), reduction="none")
        squared = (logits - (labels - self.base_T) / self.spread_T).square()
        each = torch.where(self.binary_T, entropy, squared).masked_fill(masked, 0.0)
        tasks = (each * weights_BT).sum(dim=0) / weights_BT.sum(dim=0).clamp(min=1e-12) / self.unit_T
        total = (tasks * self.task_weights_T).sum()
        for penalty in output.penalties.values():
            total = total + penalty
        return Losses(total, tasks, output.penalties)


def base_entropy(task: TaskSpec) -> float:
    """Nats that a row costs who only knows the base rate of a binary task; 1 for a regression and an unknown rate.

    >>> round(base_entropy(TaskSpec(name="like", kind="binary", base_rate=0.02)), 3)
    0.098
    """
    rate = task.base_rate
    if task.kind == "regression" or not 0.0 < rate < 1.0:
        return 1.0
    return max(-rate * math.log(rate) - (1.0 - rate) * math.log1p(-rate), _LEAST_ENTROPY)
