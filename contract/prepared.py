"""Inputs of graphs over prepared items: what hangs on the item alone is a row of a table, by its number.

Shape legend: N candidate rows, L list features, V packed ids.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.inputs import PartInputs
from contract.schema import DenseSpec, IdSpec, Part, Schema

Places = NDArray[np.intp]


def without(schema: Schema, names: Collection[str]) -> Schema:
    """The schema of what requests still bring where the features `names` are prepared."""
    return schema.model_copy(update={"features": tuple(f for f in schema.features if f.name not in names)})


def left_over(part: PartInputs, specs: Part, names: Collection[str]) -> PartInputs:
    """The columns of a part that are not prepared."""

    def others(specs: Sequence[IdSpec | DenseSpec]) -> list[int]:
        return [place for place, spec in enumerate(specs) if spec.name not in names]

    lists = others(specs.lists)
    values = list(_lists(part))
    return PartInputs(
        ids=np.ascontiguousarray(part.ids[:, others(specs.ids)]),
        list_values=_packed([values[place] for place in lists]),
        list_lengths=part.list_lengths[lists],
        dense=np.ascontiguousarray(part.dense[:, others(specs.dense)]),
    )


def with_items(part: PartInputs, items: PartInputs, specs: Part, names: Collection[str]) -> PartInputs:
    """The part with the prepared columns of `items`, which has as many rows."""

    def pick(specs: Sequence[IdSpec | DenseSpec]) -> NDArray[np.bool_]:
        return np.array([spec.name in names for spec in specs], dtype=np.bool_)

    prepared_L = pick(specs.lists)
    pairs = zip(_lists(part), _lists(items), prepared_L.tolist(), strict=True)
    return PartInputs(
        ids=np.where(pick(specs.ids), items.ids, part.ids),
        list_values=_packed([item if prepared else own for own, item, prepared in pairs]),
        list_lengths=np.where(prepared_L[:, None], items.list_lengths, part.list_lengths),
        dense=np.where(pick(specs.dense), items.dense, part.dense),
    )


def taken(part: PartInputs, rows_n: Places) -> PartInputs:
    """Some rows of a part, in the order of `rows_n` and as often as they come there."""
    lengths_Ln = part.list_lengths[:, rows_n]
    starts = (part.list_lengths.reshape(-1).cumsum().reshape(part.list_lengths.shape) - part.list_lengths)[:, rows_n]
    counts = lengths_Ln.reshape(-1)
    # Each value's place: its list's start, and how far it stands behind that.
    places_V = np.arange(counts.sum()) + np.repeat(starts.reshape(-1) - (counts.cumsum() - counts), counts)
    return PartInputs(part.ids[rows_n], part.list_values[places_V], lengths_Ln, part.dense[rows_n])


def _lists(part: PartInputs) -> Iterator[NDArray[np.int64]]:
    """The packed values of each list feature."""
    ends = part.list_lengths.sum(axis=1).cumsum()
    return (part.list_values[end - size : end] for end, size in zip(ends, part.list_lengths.sum(axis=1), strict=True))


def _packed(values: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(values) if values else np.zeros(0, np.int64)
