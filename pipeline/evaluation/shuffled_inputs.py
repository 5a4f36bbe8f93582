"""Encoded inputs of which some features are those of other rows, and stretches of rows.

Shape legend: N rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, Part, Schema


def shuffled(inputs: Inputs, schema: Schema, features: Collection[str], order: NDArray[np.int64]) -> Inputs:
    """The same rows, but that each gets the named features of the row that `order` [N] says; both parts have N rows."""
    return Inputs(
        _shuffled(inputs.request, schema.request, features, order),
        _shuffled(inputs.candidate, schema.candidate, features, order),
    )


def slice_of(part: PartInputs, begin: int, end: int) -> PartInputs:
    """The rows from `begin` until before `end`."""
    ends = _ends(part)
    pieces = [part.list_values[row[begin] : row[end]] for row in ends]
    return PartInputs(
        ids=part.ids[begin:end],
        list_values=np.concatenate(pieces) if pieces else part.list_values[:0],
        list_lengths=part.list_lengths[:, begin:end],
        dense=part.dense[begin:end],
    )


def _shuffled(part: PartInputs, specs: Part, features: Collection[str], order: NDArray[np.int64]) -> PartInputs:
    ids, dense, mine = (_named(side, features) for side in (specs.ids, specs.dense, specs.lists))
    lists = set(mine.tolist())
    changed = part
    if ids.size:
        values = part.ids.copy()
        values[:, ids] = part.ids[np.ix_(order, ids)]
        changed = replace(changed, ids=values)
    if dense.size:
        numbers = part.dense.copy()
        numbers[:, dense] = part.dense[np.ix_(order, dense)]
        changed = replace(changed, dense=numbers)
    return _with_lists(changed, lists, order) if lists else changed


def _named(specs: Sequence[IdSpec | DenseSpec], features: Collection[str]) -> NDArray[np.int64]:
    """The places of the named features."""
    return np.array([place for place, spec in enumerate(specs) if spec.name in features], dtype=np.int64)


def _with_lists(part: PartInputs, lists: Collection[int], order: NDArray[np.int64]) -> PartInputs:
    lengths, pieces = part.list_lengths.copy(), []
    for place, row in enumerate(_ends(part)):
        if place not in lists:
            pieces.append(part.list_values[row[0] : row[-1]])
            continue
        lengths[place] = part.list_lengths[place][order]
        starts = np.cumsum(lengths[place]) - lengths[place]
        inside = np.arange(int(lengths[place].sum())) - np.repeat(starts, lengths[place])
        pieces.append(part.list_values[np.repeat(row[:-1][order], lengths[place]) + inside])
    return replace(part, list_lengths=lengths, list_values=np.concatenate(pieces))


def _ends(part: PartInputs) -> list[NDArray[np.int64]]:
    """For each list feature where each row's values begin, and where the last one's end: [N + 1]."""
    flat = np.concatenate([[0], np.cumsum(part.list_lengths.reshape(-1))])
    rows = part.list_lengths.shape[1]
    return [flat[place * rows : (place + 1) * rows + 1] for place in range(part.list_lengths.shape[0])]
