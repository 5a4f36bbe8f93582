"""Gates that answer a thinned history as they answer the whole one, for users with little history.

Source: Gong et al. 2023, "Attention Weighted Mixture of Experts with Contrastive Learning for Personalized Ranking in
E-commerce" (AW-MoE): the history, attended by the candidate, decides the experts' weights, and a contrastive loss draws
a row's weights and those of the same row with events masked together, against those of other rows. Departure: logits
are compared, before the gate's own rule, since a sparse rule's weights have no gradient where they are zero.

Shape legend: B rows, R columns that gates route by, L logits of all gates, D inputs.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from contract.settings import Settings


class HistoryContrastConfig(Settings):
    """How strongly, and against what, the gates' answers to a thinned history are drawn to those to the whole one."""

    weight: Annotated[float, Field(gt=0)] = 0.05
    """What the loss is multiplied by."""
    mask: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The share of events that is left out at random."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """By what cosines are divided: the smaller, the more the nearest other rows count."""


def history_contrast(whole_BL: Tensor, masked_BL: Tensor, temperature: float) -> Tensor:
    """InfoNCE: cross-entropy of finding a row's whole history, among those of all rows, by its thinned one; 0-dim.

    >>> logits = torch.eye(3)
    >>> bool(history_contrast(logits, logits, 0.1) < history_contrast(logits, logits.flip(0), 0.1))
    True
    """
    cosines_BB = functional.normalize(masked_BL, dim=1) @ functional.normalize(whole_BL, dim=1).t()
    own_B = torch.arange(len(cosines_BB), device=cosines_BB.device)
    return functional.cross_entropy(cosines_BB / temperature, own_B)


def normed_columns(norm: nn.Module, columns_R: Tensor, x_BR: Tensor) -> Tensor:
    """Some columns of the input matrix as its norm scales them, by their own batch; its statistics stay as they are."""
    if not isinstance(norm, nn.BatchNorm1d):
        return x_BR
    weight_R, bias_R = (None if each is None else each.index_select(0, columns_R) for each in (norm.weight, norm.bias))
    return functional.batch_norm(x_BR, None, None, weight_R, bias_R, training=True, eps=norm.eps)
