"""What a gate's rule decides before the options common to all gates (regularisers, permutation) are applied.

Shapes: B rows, E experts, K selections, X experts and null experts.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from contract.errors import ConfigError
from models.row_share import draw_rows


class Choice(NamedTuple):
    """The weights of a gate's rule, and what its regularisers look at."""

    weights_BE: Tensor
    selected_BE: Tensor
    """Bool; weights are exactly 0 elsewhere."""
    penalties: dict[str, Tensor]
    """The rule's own weighted regularisation terms, 0-dim; empty outside training."""
    logits_BX: Tensor | None = None
    """The logits that the rule's softmax runs over, for the z-loss and the load balance; None if it has none."""
    load_BX: Tensor | None = None
    """Which of these columns a row used, as 0/1 (or an average over null experts), for the load balance."""


def members(index_BK: Tensor, keep_BK: Tensor | None, columns: int) -> Tensor:
    """Turn column indices into a bool mask [B, columns]; `keep_BK` leaves indices out.

    Raises nothing; indices outside the columns are ignored. A comparison, and no scatter, because it runs without
    write order on every device and exports to three plain operators.
    """
    hit_BKX = index_BK.unsqueeze(-1) == torch.arange(columns, device=index_BK.device)
    return (hit_BKX if keep_BK is None else hit_BKX & keep_BK.unsqueeze(-1)).any(-2)


def masked_softmax(logits_BX: Tensor, mask_BX: Tensor) -> Tensor:
    """Softmax over the columns of the mask, [B, X], exactly 0 elsewhere; each row needs one column at least."""
    return softmax_of_rows(logits_BX.masked_fill(~mask_BX, -torch.inf))


def softmax_of_rows(logits_BX: Tensor) -> Tensor:
    """Softmax over the columns [B, X].

    Of few columns torch computes it row by row on a processor. Where it is trained there, it is taken over the first
    dimension of the transposed matrix, whose vectors run over rows: a quarter of the time for 4,096 rows of 8.

    Example:
        >>> softmax_of_rows(torch.zeros(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    if logits_BX.requires_grad and logits_BX.device.type == "cpu":
        return logits_BX.t().softmax(0).t()
    return logits_BX.softmax(-1)


def drop_experts(choice: Choice, rate: float) -> Choice:
    """Leave out each selected expert with probability `rate`, the row's weights summing to what they did.

    A row whose experts would all go keeps them all.
    """
    if rate == 0.0:
        return choice
    draw = partial(torch.rand, dtype=choice.weights_BE.dtype, device=choice.weights_BE.device)
    kept_BE = choice.selected_BE & (draw_rows(draw, choice.weights_BE.shape) >= rate)
    weights_BE = choice.weights_BE * kept_BE
    sum_B1 = weights_BE.sum(-1, keepdim=True)
    alive_B1 = sum_B1 > 0
    scaled_BE = weights_BE * (choice.weights_BE.sum(-1, keepdim=True) / torch.where(alive_B1, sum_B1, 1.0))
    return choice._replace(
        weights_BE=torch.where(alive_B1, scaled_BE, choice.weights_BE),
        selected_BE=torch.where(alive_B1, kept_BE, choice.selected_BE),
    )


def check_at_most(option: str, value: int, experts: int) -> None:
    """Refuse an option that asks for more experts than there are; raises ConfigError."""
    if value > experts:
        message = f"gate.{option} is {value}, but there are {experts} experts: give at most {experts}"
        raise ConfigError(message)
