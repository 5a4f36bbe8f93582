"""Generated inputs for the parity check: every id and beyond, empty and long lists, one row, many rows.

Shape legend: R requests, N candidate rows, F id features, L list features, D dense features.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from contract.inputs import Inputs, PartInputs
from contract.schema import IdSpec, Part, Schema

_EXTREMES = np.array([-1, np.iinfo(np.int64).min, np.iinfo(np.int64).max, 2**31, -(2**31)])
_STRANGE_SHARE = 0.1
_LONG_LIST = 200


def generate(schema: Schema, requests: int, candidates: int, rng: np.random.Generator) -> Inputs:
    """Random inputs of the given sizes; a tenth of the ids are not rows of their table."""
    return Inputs(_part(schema.request, requests, rng), _part(schema.candidate, candidates, rng))


def sanitised(inputs: Inputs, schema: Schema) -> Inputs:
    """The same inputs with the ids that are not rows of their table set to 0, as the graph reads them."""
    return Inputs(_clean(inputs.request, schema.request), _clean(inputs.candidate, schema.candidate))


def _part(specs: Part, rows: int, rng: np.random.Generator) -> PartInputs:
    ids = [_ids(spec, rows, rng) for spec in specs.ids]
    lengths = np.stack([_lengths(rows, rng) for _ in specs.lists]) if specs.lists else np.zeros((0, rows), np.int64)
    values = [_ids(spec, int(count.sum()), rng) for spec, count in zip(specs.lists, lengths, strict=True)]
    dense = rng.normal(0.0, 1.5, (rows, len(specs.dense))).astype(np.float32)
    bins = np.array([spec.bins for spec in specs.dense], dtype=np.float32)
    positions = rng.uniform(-1.0, np.maximum(bins, 1.0), dense.shape).astype(np.float32)
    return PartInputs(
        ids=np.stack(ids, axis=1) if ids else np.zeros((rows, 0), np.int64),
        list_values=np.concatenate(values) if values else np.zeros(0, np.int64),
        list_lengths=lengths.astype(np.int64),
        dense=np.where(bins > 0, np.where(positions < 0, np.float32(-1), positions), dense),
    )


def _ids(spec: IdSpec, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    ids = rng.integers(0, spec.rows, count)
    strange = rng.random(count) < _STRANGE_SHARE
    return np.where(strange, rng.choice(np.append(_EXTREMES, spec.rows), count), ids)


def _lengths(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    lengths = rng.integers(0, 6, rows)
    lengths[rng.integers(0, rows)] = _LONG_LIST
    return lengths


def _clean(part: PartInputs, specs: Part) -> PartInputs:
    id_rows = np.array([spec.rows for spec in specs.ids], dtype=np.int64)
    list_rows = np.repeat(np.array([s.rows for s in specs.lists], dtype=np.int64), part.list_lengths.sum(axis=1))
    return replace(part, ids=_known(part.ids, id_rows), list_values=_known(part.list_values, list_rows))


def _known(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where((ids >= 0) & (ids < rows), ids, 0)
