"""The embedding tables of a schema as one TorchRec collection."""

import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from contract.schema import Schema
from models.input_layout import TableDims, layouts

with warnings.catch_warnings():
    # fbgemm_gpu's CPU build warns, on import, of CUDA kernels that it does not have.
    warnings.simplefilter("ignore")
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType

# torchrec asks on its first forward pass whether it is traced, by a function that torch has since renamed.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def embedding_collection(
    schema: Schema, dims: TableDims, init: float, device: torch.device, slots: Mapping[str, str] | None = None
) -> EmbeddingBagCollection | None:
    """Make a table of its width for each `table_name`, normal with standard deviation `init`, pooled by sum.

    `slots` are further features, each with the table that it reads. None for a schema without id features.
    """
    features: dict[str, list[str]] = {}
    for layout in layouts(schema):
        for spec in (*layout.ids, *layout.lists):
            features.setdefault(spec.table_name, []).append(spec.name)
    for name, table in (slots or {}).items():
        features[table].append(name)
    tables = [
        EmbeddingBagConfig(
            name=table,
            embedding_dim=dims.by_table.get(table, dims.default),
            num_embeddings=rows,
            feature_names=features[table],
            pooling=PoolingType.SUM,
            init_fn=_initialiser(init),
        )
        for table, rows in schema.tables().items()
    ]
    return EmbeddingBagCollection(tables, device=device) if tables else None


def _initialiser(scale: float) -> Callable[[Tensor], Tensor]:
    return partial(nn.init.normal_, std=scale)


__all__ = ["EmbeddingBagCollection", "KeyedJaggedTensor", "embedding_collection"]
