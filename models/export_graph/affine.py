"""Affine maps taken out of a trained model in double precision, so that norms fold into them without loss.

Shape legend: D inputs, H outputs.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class Affine(NamedTuple):
    """x -> x W^T + b, in float64."""

    weight_HD: Tensor
    bias_H: Tensor

    @classmethod
    def of(cls, weight_HD: Tensor, bias_H: Tensor | None) -> Self:
        """Take a layer's parameters."""
        weight = weight_HD.detach().double().cpu()
        bias = torch.zeros(weight.shape[0], dtype=torch.float64) if bias_H is None else bias_H.detach().double().cpu()
        return cls(weight, bias)

    def after(self, norm: nn.Module) -> Self:
        """Fold in a batch norm that stands before the layer (the identity folds to itself)."""
        if not isinstance(norm, nn.BatchNorm1d):
            return self
        scale, shift = _batch_norm(norm)
        return type(self)(self.weight_HD * scale, self.bias_H + self.weight_HD @ shift)

    def before(self, norm: nn.Module) -> Self:
        """Fold in a batch norm that stands after the layer (other norms stay outside)."""
        if not isinstance(norm, nn.BatchNorm1d):
            return self
        scale, shift = _batch_norm(norm)
        return type(self)(self.weight_HD * scale.unsqueeze(1), self.bias_H * scale + shift)

    def scaled(self, scale: float, shift: float) -> Self:
        """The map followed by y -> scale * y + shift."""
        return type(self)(self.weight_HD * scale, self.bias_H * scale + shift)

    def rows(self, start: int, stop: int) -> Self:
        """Only the outputs from `start` up to `stop`."""
        return type(self)(self.weight_HD[start:stop], self.bias_H[start:stop])

    def columns(self, start: int, stop: int) -> Self:
        """Only the inputs from `start` up to `stop`; the bias stays."""
        return type(self)(self.weight_HD[:, start:stop], self.bias_H)


def join(maps: list[Affine]) -> Affine:
    """Stack the outputs of maps over one input."""
    return Affine(torch.cat([m.weight_HD for m in maps]), torch.cat([m.bias_H for m in maps]))


def _batch_norm(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # noqa: S101 the model's batch norms track statistics; this tells the type checker
    assert variance is not None  # noqa: S101 the same
    scale = 1 / (variance.double().cpu() + norm.eps).sqrt()
    if not norm.affine:
        return scale, -scale * mean.double().cpu()
    scale = scale * norm.weight.detach().double().cpu()
    return scale, norm.bias.detach().double().cpu() - scale * mean.double().cpu()
