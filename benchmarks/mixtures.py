"""Mixtures with static gates for many tasks, the models of several trials side by side, and an Adam for all of them.

Shape legend: N trials, B rows, D inputs, E experts, H hidden units and outputs of an expert, T tasks.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.task_gates import TaskGates


class Sizes(NamedTuple):
    """Of one mixture; experts have two layers of `width`."""

    inputs: int
    experts: int
    width: int
    tasks: int


class Mixtures(nn.Module):
    """Experts for all tasks, a static gate and a linear head for each, once for every seed."""

    def __init__(self, gate: dict[str, Any], sizes: Sizes, seeds: Sequence[int]) -> None:
        """Draw each trial's weights by its own seed, as `torch.nn.Linear` does."""
        super().__init__()
        self.trials, self.sizes = len(seeds), sizes
        _, experts, _, tasks = sizes
        self.gates = TaskGates(gate, experts, tasks, seeds)
        drawn = [_drawn(sizes, seed) for seed in seeds]
        first, first_bias, second, second_bias, heads = (torch.stack(each) for each in zip(*drawn, strict=True))
        self.first_NDU, self.first_bias_N1U = nn.Parameter(first), nn.Parameter(first_bias)
        self.second_GHH = nn.Parameter(second.flatten(0, 1))
        self.second_bias_G1H = nn.Parameter(second_bias.flatten(0, 1))
        self.heads_NTH, self.bias_N1T = nn.Parameter(heads), nn.Parameter(torch.zeros(self.trials, 1, tasks))

    def forward(self, x_NBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answers [N, B, T], the mean of the gates' penalties, and their selections [N * T, E]."""
        routing, (_, experts, width, tasks) = self.gates(), self.sizes
        rows = x_NBD.shape[1]
        hidden_NBU = torch.baddbmm(self.first_bias_N1U, x_NBD, self.first_NDU).relu()
        hidden_GBH = hidden_NBU.unflatten(2, (experts, width)).transpose(1, 2).reshape(-1, rows, width)
        answers_GBH = torch.baddbmm(self.second_bias_G1H, hidden_GBH, self.second_GHH).relu()
        outputs_NBU = answers_GBH.view(self.trials, experts, rows, width).transpose(1, 2).reshape(self.trials, rows, -1)
        # A head of a mixture is linear: its weights for each expert are the gate's times its own.
        weights_NTE1 = routing.weights_BE.view(self.trials, tasks, experts, 1)
        mixing_NTU = (weights_NTE1 * self.heads_NTH.unsqueeze(2)).flatten(2)
        penalty = sum(routing.penalties.values(), x_NBD.new_zeros(()))
        return torch.baddbmm(self.bias_N1T, outputs_NBU, mixing_NTU.transpose(1, 2)), penalty, routing.selected_BE

    def selected(self) -> Tensor:
        """Which experts each task's gate selects now [N, T, E]."""
        selected: Tensor = self.gates().selected_BE
        return selected.view(self.trials, self.sizes.tasks, -1)


def _drawn(sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
    inputs, experts, width, tasks = sizes
    draw = torch.Generator().manual_seed(seed)

    def uniform(bound: float, *shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=draw)

    first = uniform(inputs**-0.5, inputs, experts * width), uniform(inputs**-0.5, 1, experts * width)
    second = uniform(width**-0.5, experts, width, width), uniform(width**-0.5, experts, 1, width)
    return *first, *second, torch.randn(tasks, width, generator=draw) * width**-0.5


class TrialAdam:
    """Adam with the rates of `OneCycleLR`, of which each trial has its own highest one.

    Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1. The first axis of each
    parameter is the trials', or a multiple of theirs.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate_N: Tensor, steps: int) -> None:
        """Train `parameters` for so many steps."""
        self._parameters = list(parameters)
        self._rates = [_spread(rate_N, parameter) for parameter in self._parameters]
        self._means, self._squares = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        unit = torch.optim.Adam([nn.Parameter(torch.zeros(()))], lr=1.0)
        self._unit, self._cycle = unit, torch.optim.lr_scheduler.OneCycleLR(unit, 1.0, total_steps=steps)
        self._step = 0

    def step(self, loss: Tensor) -> None:
        """Take a step down a loss that is the sum over trials."""
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        rate, (first, second) = self._unit.param_groups[0]["lr"], self._unit.param_groups[0]["betas"]
        self._step += 1
        right = (1 - second**self._step) ** 0.5 / (1 - first**self._step)
        with torch.no_grad():
            each = zip(self._parameters, self._rates, self._means, self._squares, strict=True)
            for parameter, own, mean, square in each:
                if parameter.grad is not None:
                    mean.lerp_(parameter.grad, 1 - first)
                    square.mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
                    parameter.sub_(own * mean / square.sqrt().add_(_EPSILON) * (rate * right))
        self._unit.step()
        self._cycle.step()


_EPSILON = 1e-8


def _spread(rate_N: Tensor, parameter: Tensor) -> Tensor:
    rates = rate_N.repeat_interleave(len(parameter) // len(rate_N))
    return rates.view(-1, *(1 for _ in parameter.shape[1:]))
