"""Gradient surgery: a task's gradient loses what points against another task's.

Source: Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1. It works on what at least two tasks
share: parameters of the network, and the input matrix, whose projected gradient goes on to the tables. With several
ranks, each projects the gradients of its own rows.

Shape legend: T tasks, P shared numbers.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses
from models.weighting.task_weighting import Shared, Weighting, WeightingSettings

_TINY = 1e-12


class PCGradConfig(WeightingSettings):
    """No options. It costs one backward pass through the network per task."""

    name: Literal["pcgrad"] = "pcgrad"

    def build(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> Weighting:
        """Build the rule."""
        return PCGrad(tasks, weights_T)


class PCGrad(Weighting):
    """Projects in a random order of the others, redrawn for each task and step."""

    def backward(self, losses: Losses, shared: Shared) -> Losses:
        """A backward pass per task, the projections, then the result by way of a surrogate's backward pass."""
        leaves = [shared.columns_BD, *shared.parameters]
        gradients = [_gradients(loss, leaves) for loss in (losses.tasks_T * self.weights_T).unbind()]
        penalty = sum(losses.penalties.values(), losses.tasks_T.new_zeros(()))
        extra = _gradients(penalty, leaves) if penalty.requires_grad else [None] * len(leaves)
        common = [place for place in range(len(leaves)) if sum(each[place] is not None for each in gradients) > 1]
        combined: dict[int, Tensor] = {}
        if common:
            projected_P = _project(torch.stack([_flat(each, common, leaves) for each in gradients])).sum(0)
            combined = dict(zip(common, projected_P.split([leaves[p].numel() for p in common]), strict=True))
        # Hooks of parameters and the tables' own updates run in a backward pass only: this one hands them the result.
        surrogate = losses.tasks_T.new_zeros(())
        for place, leaf in enumerate(leaves):
            parts = [combined[place].view_as(leaf)] if place in combined else [each[place] for each in gradients]
            gradient = _total([*parts, extra[place]], leaf)
            surrogate = surrogate + (leaf * gradient).sum()
        surrogate.backward()
        return losses._replace(total=(losses.tasks_T * self.weights_T).sum().detach() + penalty.detach())


def _gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    # The losses come out of one vector, so a parameter of another task has a gradient of zeros rather than none.
    gradients = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [None if gradient is None or not bool(gradient.any()) else gradient for gradient in gradients]


def _flat(gradients: Sequence[Tensor | None], places: Sequence[int], leaves: Sequence[Tensor]) -> Tensor:
    return torch.cat([_total([gradients[place]], leaves[place]).flatten() for place in places])


def _total(parts: Sequence[Tensor | None], leaf: Tensor) -> Tensor:
    return sum((part for part in parts if part is not None), torch.zeros_like(leaf))


def _project(gradients_TP: Tensor) -> Tensor:
    squares_T = gradients_TP.square().sum(1).clamp_min(_TINY)
    projected = []
    for task, gradient_P in enumerate(gradients_TP):
        left_P = gradient_P
        for other in torch.randperm(len(gradients_TP)).tolist():
            if other != task:
                conflict = (left_P @ gradients_TP[other]).clamp(max=0.0)
                left_P = left_P - conflict / squares_T[other] * gradients_TP[other]
        projected.append(left_P)
    return torch.stack(projected)
