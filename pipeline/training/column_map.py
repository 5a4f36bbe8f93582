"""Carries over what reads the input matrix column by column, where features have come, gone or moved.

Shape legend: D columns of the input matrix now.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.schema import DenseSpec, IdSpec, Schema
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.sequences import network_columns

Dimensions = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ColumnMap:
    """For each column now the column of the same feature before (`index_D`; -1: none), of `before` columns in all.

    `dimensions` says which dimensions of a tensor of the network are the matrix's columns; none are where the matrix is
    as it was.
    """

    index_D: NDArray[np.int64]
    before: int
    dimensions: Dimensions

    @classmethod
    def between(cls, old: Schema, ranker: Ranker) -> Self:
        """The map from what an earlier run was trained on to what a model reads now."""
        index_D, before = _index(old, ranker.schema, ranker.config)
        same = len(index_D) == before and bool((index_D == np.arange(before)).all())
        return cls(index_D, before, {} if same else matrix_dimensions(ranker))

    @torch.no_grad()
    def copy(self, name: str, value: Tensor, old: Tensor | None) -> bool:
        """Copy a tensor, by its name in a checkpoint, from the one before; False: it does not fit."""
        if old is None or value.ndim != old.ndim:
            return False
        mapped = self._dimensions_of(name) if value.ndim else ()
        if any(value.shape[d] != old.shape[d] for d in range(value.ndim) if d not in mapped):
            return False
        if any(old.shape[d] != self.before for d in mapped):
            return False
        source, target = old, [torch.arange(size) for size in value.shape]
        known = torch.from_numpy(np.flatnonzero(self.index_D >= 0))
        for dimension in mapped:
            source = source.index_select(dimension, torch.from_numpy(self.index_D)[known])
            target[dimension] = known
        if mapped:
            value[torch.meshgrid(*target, indexing="ij")] = source.to(value.device, value.dtype)
        else:
            value.copy_(old)
        return True

    def _dimensions_of(self, name: str) -> tuple[int, ...]:
        """Of a parameter, or of what an optimiser keeps of it: both have its name within theirs."""
        parameter = name[name.find("network.") :]
        return self.dimensions.get(parameter) or self.dimensions.get(parameter.rpartition(".")[0], ())


def matrix_dimensions(ranker: Ranker) -> Dimensions:
    """By a tensor's name, the dimensions that are the input matrix's columns: those that one more feature widens.

    Their size alone does not tell: layers may have as many units as the matrix has columns.
    """
    schema, config = ranker.schema, ranker.config
    more = DenseSpec(name="__one_more", side="item", encoding="standardise")
    wider = schema.model_copy(update={"features": (*schema.features, more)})
    now, then = (Ranker(each, config, torch.device("meta")).state_dict() for each in (schema, wider))
    columns = sum(len(feature.columns) for feature in network_columns(schema, config.dims, config.sequences))
    return {
        name: tuple(
            dimension
            for dimension, (size, widened) in enumerate(zip(tensor.shape, then[name].shape, strict=True))
            if size == columns and widened > size
        )
        for name, tensor in now.items()
    }


def _index(old: Schema, new: Schema, config: ModelConfig) -> tuple[NDArray[np.int64], int]:
    """For each column now the column of the same feature before, -1 for a new feature [D]; how many there were."""
    earlier = network_columns(old, config.dims, config.sequences)
    before = {column.spec.name: column for column in earlier}
    columns: list[int] = []
    for feature in network_columns(new, config.dims, config.sequences):
        known = before.get(feature.spec.name)
        same = known is not None and len(known.columns) == len(feature.columns)
        same = same and isinstance(feature.spec, IdSpec) == isinstance(known.spec if known else None, IdSpec)
        columns += known.columns if known is not None and same else [-1] * len(feature.columns)
    return np.array(columns, dtype=np.int64), sum(len(each.columns) for each in earlier)
