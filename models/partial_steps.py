"""Tables that take a share of a full step, where the share lies on the device.

fbgemm is given its learning rate by the host, so a step that was captured as a CUDA graph would repeat the rate that it
was captured with. The steps of its optimisers here are proportional to their rates: fbgemm takes the full step, and
each row that it moved then goes back to before + share (after - before).

Shape legend: F id features of a group of tables, B rows of the batch, V their ids together, X their rows' columns side
by side, R rows and K columns of the tables.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.table_groups import TableGroup, hooked, is_plain, table_groups

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode


class _LookUp(NamedTuple):
    """What a step asks a group of tables for, and the rows that it got."""

    group: "_Group"
    ids_V: Tensor
    again: Callable[[], Tensor]
    before_BX: Tensor


class PartialSteps:
    """Watches the tables of a model through a step; ids have one value a row, as `fits` says."""

    def __init__(self, embeddings: nn.Module, share: Tensor) -> None:
        """Take the tables, sharded on one rank, and the share, float32 and without dimensions, on their device."""
        self._groups = [_Group(module) for module in table_groups(embeddings)]
        self._share = share

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A step's forward and backward passes, in which each group of tables is asked once."""
        asked: list[_LookUp] = []
        with hooked([group.watch(asked) for group in self._groups]):
            yield
        for each in asked:
            each.group.go_back(each, self._share)


def fits(embeddings: nn.Module) -> bool:
    """Whether all tables lie on their device whole, and those that fbgemm joins have the same width."""
    return all(map(is_plain, table_groups(embeddings)))


class _Group(TableGroup):
    """Tables that are asked together."""

    def watch(self, asked: list[_LookUp]) -> torch.utils.hooks.RemovableHandle:
        """Note what is asked for."""

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], rows_BX: Tensor) -> None:
            ids_V: Tensor = kwargs["indices"] if "indices" in kwargs else args[0]
            asked.append(_LookUp(self, ids_V.detach(), partial(module, *args, **kwargs), rows_BX.detach()))

        return self.module.register_forward_hook(note, with_kwargs=True)

    @torch.no_grad()
    def go_back(self, asked: _LookUp, share: Tensor) -> None:
        """Write rows between what they were and what they are by now.

        A sum over one id is its row, so both are look-ups: on a card, gathering such short rows by `index_select` took
        seven times as long. An id that stands there twice is written twice, with the same numbers.
        """
        checks, self.module.bounds_check_mode_int = self.module.bounds_check_mode_int, BoundsCheckMode.NONE.value
        try:
            after_BX = asked.again()
        finally:
            self.module.bounds_check_mode_int = checks
        rows_BX = torch.lerp(asked.before_BX, after_BX, share)
        places_BF = (asked.ids_V.view(len(self.firsts_F), -1) + self.firsts_F.unsqueeze(1)).t()
        self.memory_RK.index_copy_(0, places_BF.reshape(-1), rows_BX.view(-1, self.memory_RK.shape[1]))
