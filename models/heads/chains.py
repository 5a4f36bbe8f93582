"""Chains of tasks over the whole space of rows: a task that needs another one first answers with both's product.

Source: Ma et al. 2018, "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion
Rate", equation 1: p_ctcvr = p_ctr * p_cvr, both labels being known for every impression. The tower of the later task
learns the conditional probability (p_cvr) without a label of its own.

Shape legend: B rows.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.schema import TaskSpec


class Chain(nn.Module):
    """`order`: the tasks (by index) that are chained, each with its predecessor, predecessors first."""

    def __init__(self, tasks: tuple[TaskSpec, ...], chains: Mapping[str, str]) -> None:
        """Order the chains.

        Raises:
            ConfigError: a task that does not exist or is not a probability, or a circle.
        """
        super().__init__()
        self.tasks = tasks
        index = {task.name: place for place, task in enumerate(tasks)}
        for later, earlier in chains.items():
            _check(later, earlier, {task.name: task for task in tasks})
        self.order: list[tuple[int, int]] = []
        waiting = dict(chains)
        while waiting:
            ready = [name for name, first in waiting.items() if first not in waiting]
            if not ready:
                message = (
                    f"model.chains goes round in a circle: {', '.join(f'{a} after {b}' for a, b in waiting.items())}"
                )
                raise ConfigError(message)
            self.order += [(index[name], index[waiting.pop(name)]) for name in ready]

    def starting_points(self) -> list[float]:
        """The raw output at which each tower starts: the base rate's logit, of a chained task given the one before."""
        before = dict(self.order)
        return [
            _starting_point(task, self.tasks[before[t]] if t in before else None) for t, task in enumerate(self.tasks)
        ]

    def forward(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Logits [B, 1] of the products for chained tasks, all others as they are."""
        chained = list(outputs)
        for later, earlier in self.order:
            chained[later] = product_logit(chained[earlier], chained[later])
        return chained

    def multiply(self, answers: Sequence[Tensor]) -> list[Tensor]:
        """The same on probabilities, as the graph has them."""
        chained = list(answers)
        for later, earlier in self.order:
            chained[later] = chained[earlier] * chained[later]
        return chained


def product_logit(first: Tensor, second: Tensor) -> Tensor:
    """The logit of sigmoid(first) * sigmoid(second), stable at every size: 1/p - 1 = e^-a + e^-b + e^-(a + b)."""
    return -torch.stack([-first, -second, -first - second]).logsumexp(0)


def _check(later: str, earlier: str, tasks: Mapping[str, TaskSpec]) -> None:
    for name in (later, earlier):
        if name not in tasks:
            message = f"model.chains names the task {name!r}; the tasks are: {', '.join(tasks)}"
            raise ConfigError(message)
        if tasks[name].kind != "binary":
            message = f"model.chains names {name}, a regression task; only probabilities can be chained"
            raise ConfigError(message)


def _starting_point(task: TaskSpec, before: TaskSpec | None) -> float:
    if task.kind == "regression":
        return 0.0
    given = 1.0 if before is None else max(before.base_rate, 1e-4)
    rate = min(max(task.base_rate / given, 1e-4), 1 - 1e-4)
    return math.log(rate / (1 - rate))
