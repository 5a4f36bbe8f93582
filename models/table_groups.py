"""Embedding tables as fbgemm keeps them: those that are updated alike lie in one piece of memory.

Shape legend: F id features of a group of tables, V their ids together, R rows and K columns of the tables.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        SplitTableBatchedEmbeddingBagsCodegen as Codegen,
    )


class TableGroup:
    """Tables of one width in one piece of memory, [R, K]."""

    def __init__(self, module: Codegen) -> None:
        """Find them in a group for which `is_plain` holds."""
        self.module = module
        tables = module.split_embedding_weights()
        width = tables[0].shape[1]
        firsts = torch.tensor([table.storage_offset() // width for table in tables])
        rows = sum(len(table) for table in tables)
        self.memory_RK = tables[0].detach().as_strided((rows, width), (width, 1), 0)
        self.firsts_F = firsts[torch.tensor(module.feature_table_map)].to(tables[0].device)
        """Where each feature's table begins."""

    def places(self, ids_V: Tensor, offsets: Tensor) -> Tensor:
        """The rows of the memory that feature-major ids mean; `offsets` [F x B + 1], where each row's ids begin."""
        begins_F = offsets.view(-1)[:: (len(offsets) - 1) // len(self.firsts_F)]
        return ids_V + self.firsts_F.repeat_interleave(begins_F.diff(), output_size=len(ids_V))


@contextmanager
def hooked(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Hooks that are there for a while."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def table_groups(embeddings: nn.Module) -> list[Codegen]:
    """The groups of sharded tables."""
    # TorchRec keeps them where `modules` does not see them.
    lookups: list[nn.Module] = embeddings._lookups  # type: ignore[assignment] # noqa: SLF001
    kinds = (module for lookup in lookups for module in lookup.modules())
    return [module for module in kinds if isinstance(module, Codegen)]


def is_plain(module: Codegen) -> bool:
    """Whether its tables are of one width, and none lies in another memory than its device's."""
    widths = {width for _, width, *_ in module.embedding_specs}
    places = {EmbeddingLocation.DEVICE, EmbeddingLocation.HOST}
    cached = any(location not in places for _, _, location, _ in module.embedding_specs)
    return len(widths) == 1 and not cached
