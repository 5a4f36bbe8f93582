"""What the ranks of a step have to know of one another before it moves anything.

Shape legend: B rows of this rank, T tasks.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from models.losses import Losses
from pipeline.training.bad_batch import BadBatch


class Wishes(NamedTuple):
    """What any rank may ask for before a step: to stop after it, or to save after it."""

    stop: bool = False
    save: bool = False


def with_rows(bad: BadBatch) -> BadBatch:
    """What the first rank that holds a bad row says; all ranks must ask together."""
    everyone: list[BadBatch | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, bad)
    return next((each for each in everyone if each is not None and each.rows), bad)


def wishes_of(wishes: Wishes, dtype: torch.dtype = torch.float32) -> Tensor:
    """As numbers [2], in the host's memory."""
    return torch.tensor([wishes.stop, wishes.save], dtype=dtype)


def everywhere(weights_BT: Tensor, losses: Losses, wishes: Wishes) -> tuple[Tensor, Tensor, Tensor]:
    """What the ranks know together: mean sums of weights [T], whether all losses are finite, who wants what [2]."""
    sums_T = weights_BT.sum(dim=0)
    finite = losses.total.detach().isfinite()
    world = dist.get_world_size()
    flags = wishes_of(wishes, sums_T.dtype)
    if world == 1:
        return sums_T, finite, flags
    everything = torch.cat([sums_T, (~finite).to(sums_T).reshape(1), flags.to(sums_T.device, non_blocking=True)])
    dist.all_reduce(everything)
    sums_T, broken, flags = everything.split([len(sums_T), 1, len(flags)])
    return sums_T / world, broken[0] == 0, flags


def agree(weights_BT: Tensor, losses: Losses, wishes: Wishes) -> tuple[Tensor, bool, Wishes]:
    """The same, for a host that waits to know it."""
    sums_T, finite, flags = everywhere(weights_BT, losses, wishes)
    if dist.get_world_size() == 1:
        return sums_T, bool(finite), wishes
    fine, stop, save = torch.cat([finite.to(flags).reshape(1), flags]).tolist()
    return sums_T, fine > 0, Wishes(stop > 0, save > 0)
