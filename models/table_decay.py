"""Weight decay of embedding rows: each row that a step reads loses its rate times its decay of itself.

fbgemm's optimisers are given a decay and leave it out: their mode of decay is none unless another is asked for, and on
processors none of the modes changed a row. So it is done here, decoupled from the gradient as AdamW's is, on the rows
that a step has read, which are the ones that it moves.

Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.

Shape legend: V ids of a group of tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from contract.errors import ConfigError
from models.table_groups import TableGroup, hooked, is_plain, table_groups


class _Read(NamedTuple):
    group: TableGroup
    places_V: Tensor


class TableDecay:
    """Knows which rows a step has read; nothing to do where no table decays."""

    def __init__(self, embeddings: nn.Module | None) -> None:
        """Take the tables, sharded on this rank.

        Raises:
            ConfigError: tables that decay are of several widths in one group, or lie in the host's memory.
        """
        groups = [] if embeddings is None else table_groups(embeddings)
        decaying = [module for module in groups if module.optimizer_args.weight_decay > 0]
        if not all(map(is_plain, decaying)):
            message = (
                "embeddings cannot decay where their tables are of several widths, or partly in the host's memory: set "
                "train.embedding_weight_decay and train.tables.TABLE.weight_decay to 0, or leave model.table_dims out"
            )
            raise ConfigError(message)
        self._groups = [TableGroup(module) for module in decaying]
        self.active = bool(decaying)
        self._read: list[_Read] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the rows that are read meanwhile, in place of those of the last time."""
        self._read = []
        with hooked([self._watch(group) for group in self._groups]):
            yield

    @torch.no_grad()
    def apply(self, share: Tensor | float = 1.0) -> None:
        """Let the rows that were read decay by a share of their rate; 0 for a step that is to move nothing."""
        for group, places_V in self._read:
            module = group.module
            lost = module.get_learning_rate() * module.optimizer_args.weight_decay * share
            # A row that stands there twice is written twice, with the same numbers.
            rows = group.memory_RK.index_select(0, places_V) * (1.0 - lost)
            group.memory_RK.index_copy_(0, places_V, rows)

    def _watch(self, group: TableGroup) -> torch.utils.hooks.RemovableHandle:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            ids_V, offsets = (kwargs["indices"], kwargs["offsets"]) if "indices" in kwargs else args[:2]
            self._read.append(_Read(group, group.places(ids_V.detach(), offsets)))

        return group.module.register_forward_pre_hook(note, with_kwargs=True)
