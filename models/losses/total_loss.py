"""The training loss: per-task losses over the rows a task applies to, task weights and gate penalties.

Shape legend: B rows, T tasks.
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.losses.pointwise import Pointwise, default_loss
from models.losses.within_user import WithinUserConfig
from models.ranker_tensors import RankerOutput

LossScale = Literal["entropy", "none"]


class Losses(NamedTuple):
    """The total to minimise and its parts: `tasks_T` before the user's weights, `penalties` by name."""

    total: Tensor
    tasks_T: Tensor
    penalties: dict[str, Tensor]


class RankingLoss(nn.Module):
    """Each task's loss as a share of what its base rate alone would lose, a weighted mean over rows.

    Cross-entropy is divided by the entropy of the base rate (He et al. 2014, "Practical Lessons from Predicting Clicks
    on Ads at Facebook", section 3.1: normalised entropy) and squared error by the label's variance: a model that
    answers the base rate to all rows loses 1 in every task, however rare it is. `scale` ``none`` leaves
    cross-entropy in nats. A row of weight 0 for a task does not count for it; a task with no row in the batch has
    loss 0.

    `losses` replace a task's own loss by name, and `within_user` adds a term over the rows of one user. Of several
    members each has its own losses, of which the mean counts: the loss of their mean answer would let one member mend
    what another one gets wrong, and they would not be an ensemble.
    """

    unit_T: Tensor
    task_weights_T: Tensor

    def __init__(
        self,
        tasks: tuple[TaskSpec, ...],
        task_weights: Mapping[str, float] | None = None,
        scale: LossScale = "entropy",
        losses: Mapping[str, Pointwise] | None = None,
        within_user: Mapping[str, WithinUserConfig] | None = None,
    ) -> None:
        """Weigh tasks by name (1 where not named).

        Raises:
            ConfigError: a setting for a task that does not exist, or a loss for a task of another kind.
        """
        super().__init__()
        self.tasks, self.within = tasks, dict(within_user or {})
        weights = dict(task_weights or {})
        named: dict[str, Mapping[str, object]] = {
            "task_weights": weights,
            "losses": dict(losses or {}),
            "within_user": self.within,
        }
        for setting, values in named.items():
            _refuse_unknown(setting, values, tasks)
        self.rules = [_rule(task, losses or {}) for task in tasks]
        for task in tasks:
            if task.name in self.within and task.kind != "binary":
                message = f"train.within_user names {task.name}, a {task.kind} task; it takes binary ones"
                raise ConfigError(message)
        units = [rule.unit(task) if scale == "entropy" else 1.0 for task, rule in zip(tasks, self.rules, strict=True)]
        self.register_buffer("unit_T", torch.tensor(units))
        self.register_buffer("task_weights_T", torch.tensor([weights.get(task.name, 1.0) for task in tasks]))

    def forward(
        self,
        output: RankerOutput,
        labels_BT: Tensor,
        weights_BT: Tensor,
        users_B: Tensor | None = None,
        sums_T: Tensor | None = None,
        taught_BT: Tensor | None = None,
    ) -> Losses:
        """The loss of one batch; labels of masked-out entries are never read (they may be anything, NaN too).

        `users_B` are the rows' users as any integers, for the terms within a user. `sums_T` is what the sums of
        weighted losses are divided by; None: the sums of the weights. Where a batch is spread over ranks, it is the
        mean over ranks of their sums of weights: the mean of the ranks' losses is then the whole batch's. `taught_BT`
        are labels that a teacher has drawn towards its answers, for the tasks' own losses.
        """
        masked = weights_BT == 0
        labels = labels_BT.masked_fill(masked, 0.0)
        each = self.by_row(output, labels_BT if taught_BT is None else taught_BT, weights_BT)
        sums = weights_BT.sum(dim=0) if sums_T is None else sums_T
        tasks = (each * weights_BT).sum(dim=0) / sums.clamp(min=1e-12) / self.unit_T
        if self.within and users_B is not None:
            of_user = _mean_over_members(output, lambda each_BT: self._within(each_BT, labels, ~masked, users_B))
            tasks = tasks + of_user
        total = (tasks * self.task_weights_T).sum()
        for penalty in output.penalties.values():
            total = total + penalty
        return Losses(total, tasks, output.penalties)

    def by_row(self, output: RankerOutput, labels_BT: Tensor, weights_BT: Tensor) -> Tensor:
        """Each row's loss in each task [B, T], before weights and units; 0 where the weight is."""
        masked = weights_BT == 0
        labels = labels_BT.masked_fill(masked, 0.0)
        return _mean_over_members(output, lambda logits_BT: self._tasks(logits_BT, labels)).masked_fill(masked, 0.0)

    def _tasks(self, logits_BT: Tensor, labels_BT: Tensor) -> Tensor:
        columns = zip(logits_BT.unbind(1), labels_BT.unbind(1), strict=True)
        return torch.stack([self._rows(place, *column) for place, column in enumerate(columns)], 1)

    def _rows(self, place: int, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        task = self.tasks[place]
        if task.kind == "regression":
            labels_B = (labels_B - task.base_rate) / max(task.spread, 1e-6)
        return self.rules[place].rows(outputs_B, labels_B)

    def _within(self, logits_BT: Tensor, labels_BT: Tensor, applies_BT: Tensor, users_B: Tensor) -> Tensor:
        terms = []
        for place, task in enumerate(self.tasks):
            rows_B = applies_BT[:, place]
            if task.name in self.within:
                given = (x[rows_B] for x in (logits_BT[:, place], labels_BT[:, place], users_B))
                terms.append(self.within[task.name].loss(*given))
            else:
                terms.append(logits_BT.new_zeros(()))
        return torch.stack(terms)


def _mean_over_members(output: RankerOutput, losses_of: Callable[[Tensor], Tensor]) -> Tensor:
    if not output.members:
        return losses_of(output.logits_BT)
    return torch.stack([losses_of(logits_BT) for logits_BT in output.members]).mean(dim=0)


def base_entropy(task: TaskSpec) -> float:
    """Nats that a row costs who only knows the base rate of a binary task; 1 for a regression and an unknown rate.

    >>> round(base_entropy(TaskSpec(name="like", kind="binary", base_rate=0.02)), 3)
    0.098
    """
    return default_loss(task).unit(task)


def _rule(task: TaskSpec, losses: Mapping[str, Pointwise]) -> Pointwise:
    rule = losses.get(task.name, default_loss(task))
    if rule.kind != task.kind:
        allowed = "cross_entropy or focal" if task.kind == "binary" else "squared, huber or quantile"
        message = f"train.losses gives {task.name}, a {task.kind} task, a loss of {rule.kind} tasks: use {allowed}"
        raise ConfigError(message)
    return rule


def _refuse_unknown(setting: str, values: Mapping[str, object], tasks: tuple[TaskSpec, ...]) -> None:
    names = [task.name for task in tasks]
    if unknown := sorted(set(values) - set(names)):
        message = f"{setting} names {', '.join(unknown)}; the tasks are: {', '.join(names)}"
        raise ConfigError(message)
