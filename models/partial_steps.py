"""Tables that take a share of a full step, where the share lies on the device.

fbgemm is given its learning rate by the host, so a step that was captured as a CUDA graph would repeat the rate that it
was captured with. The steps of its optimisers here are proportional to their rates: fbgemm takes the full step, and
each row that it moved then goes back to before + share (after - before).

Shape legend: F id features of a table group, B rows of the batch, V their ids together, K embedding dim.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen


class _Moving(NamedTuple):
    """Rows that a step reads: where they lie in their tables' memory, and what they were."""

    memory_RK: Tensor
    places_V: Tensor
    before_VK: Tensor


class PartialSteps:
    """Watches the tables of a model through a step; ids have one value a row, as `fits` says."""

    def __init__(self, embeddings: nn.Module, share: Tensor) -> None:
        """Take the tables, sharded on one rank, and the share, float32 and without dimensions, on their device."""
        self._groups = [_Group(module) for module in _table_groups(embeddings)]
        self._share = share

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A step's forward and backward passes, in which each group of tables is asked once."""
        moving: list[_Moving] = []
        handles = [group.watch(moving) for group in self._groups]
        try:
            yield
            self._go_back(moving)
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _go_back(self, moving: list[_Moving]) -> None:
        for memory_RK, places_V, before_VK in moving:
            after_VK = memory_RK.index_select(0, places_V)
            # An id that stands there twice is written twice, with the same numbers.
            memory_RK.index_copy_(0, places_V, torch.lerp(before_VK, after_VK, self._share))


def fits(embeddings: nn.Module) -> bool:
    """Whether all tables lie on their device whole, and those that fbgemm joins have the same width."""
    return all(_Group.takes(module) for module in _table_groups(embeddings))


class _Group:
    """Tables that fbgemm keeps in one piece of memory."""

    def __init__(self, module: SplitTableBatchedEmbeddingBagsCodegen) -> None:
        self._module = module
        tables = module.split_embedding_weights()
        width = tables[0].shape[1]
        firsts = torch.tensor([table.storage_offset() // width for table in tables])
        rows = sum(len(table) for table in tables)
        self._memory_RK = tables[0].detach().as_strided((rows, width), (width, 1), 0)
        self._firsts_F1 = firsts[torch.tensor(module.feature_table_map)].unsqueeze(1).to(tables[0].device)

    @staticmethod
    def takes(module: SplitTableBatchedEmbeddingBagsCodegen) -> bool:
        """Whether its tables are of one width, and none lies in another memory than its device's."""
        widths = {width for _, width, *_ in module.embedding_specs}
        places = {EmbeddingLocation.DEVICE, EmbeddingLocation.HOST}
        cached = any(location not in places for _, _, location, _ in module.embedding_specs)
        return len(widths) == 1 and not cached

    def watch(self, moving: list[_Moving]) -> torch.utils.hooks.RemovableHandle:
        """Note what is about to be read."""

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            ids_V: Tensor = kwargs["indices"] if "indices" in kwargs else args[0]
            places_V = (ids_V.detach().view(len(self._firsts_F1), -1) + self._firsts_F1).view(-1)
            moving.append(_Moving(self._memory_RK, places_V, self._memory_RK.index_select(0, places_V)))

        return self._module.register_forward_pre_hook(note, with_kwargs=True)


def _table_groups(embeddings: nn.Module) -> list[SplitTableBatchedEmbeddingBagsCodegen]:
    # TorchRec keeps them where `modules` does not see them.
    lookups: list[nn.Module] = embeddings._lookups  # type: ignore[assignment] # noqa: SLF001
    kinds = (module for lookup in lookups for module in lookup.modules())
    return [module for module in kinds if isinstance(module, SplitTableBatchedEmbeddingBagsCodegen)]
