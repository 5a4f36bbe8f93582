"""Averages of the network's weights over steps: what is validated, saved as the model, and served.

Sources: an exponential moving average as in Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by
Averaging", with the warm-up (1 + n) / (10 + n) of its decay that TensorFlow uses; an equal mean over the last part of
training as in Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization". Tables are not
averaged: a row changes only in the steps that read it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from models.sharding import Sharded
from pipeline.training.checkpoint import AVERAGE
from pipeline.training.train_config import AverageConfig

_COUNT = "steps_averaged"


class WeightAverage:
    """The averages of one model's network, and of the statistics of its norms."""

    def __init__(self, sharded: Sharded, config: AverageConfig) -> None:
        """Begin with the weights as they are."""
        self.config = config
        buffers = {f"network.{name}": b for name, b in sharded.ranker.network.named_buffers() if b.is_floating_point()}
        known = sharded.ranker.state_dict()
        self._own = {**sharded.named_dense_parameters(), **{n: b for n, b in buffers.items() if n in known}}
        self.state = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        self.state[_COUNT] = torch.tensor(0, device=next(iter(self._own.values())).device)
        sharded.beside[AVERAGE] = self.state

    def begin(self) -> None:
        """Begin again with the weights as they are now."""
        for name, tensor in self._own.items():
            self.state[name].copy_(tensor.detach())

    def has_begun(self, step: int, total: int) -> bool:
        """Whether step `step` (from 0) of `total` counts."""
        return step >= self.config.start * total

    @torch.no_grad()
    def follow(self, step: int, total: int, moved: Tensor | None = None) -> None:
        """Take the weights in after step `step` (from 0) of `total`, unless it was one that moved nothing.

        `moved`, a flag that may lie on a card, says so; None: it did.
        """
        if not self.has_begun(step, total):
            self.begin()
            return
        count = self.state[_COUNT].add_(1 if moved is None else moved)
        share = self._share(count.double())
        if moved is not None:
            share = torch.where(moved, share, 0.0)
        for name, tensor in self._own.items():
            self.state[name].lerp_(tensor.detach(), share.to(tensor.dtype))

    def _share(self, count: Tensor) -> Tensor:
        """That of the newest of so many weights."""
        if self.config.name == "ema":
            return (1.0 - (1.0 + count) / (10.0 + count)).clamp(min=1.0 - self.config.decay)
        return 1.0 / count

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the weights, and the weights back."""
        weights = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        self._put(self.state)
        try:
            yield
        finally:
            self._put(weights)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._own.items():
            tensor.copy_(values[name])
