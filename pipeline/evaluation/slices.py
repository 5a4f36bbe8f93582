"""Slices: parts of the rows on which a model may do worse than on the whole.

Shape legend: N rows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.dataset import EncodedDataset
from contract.errors import ConfigError
from contract.schema import DenseSpec, IdSpec, Schema
from pipeline.evaluation.baselines import Counts, TrainingRows
from pipeline.evaluation.file_tables import file_column
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.raw_values import raw_numbers, raw_texts

Masks = dict[str, NDArray[np.bool_]]
HISTORY_CUTS = (1, 10, 100, 1000)
MOST_VALUES = 10


def by_history(predictions: Predictions, training: TrainingRows, schema: Schema) -> dict[str, Masks]:
    """New and known users and items, and how often training saw them; masks [N] by slice and value."""
    slices: dict[str, Masks] = {}
    sides = (("user", schema.user_key, training.users, predictions.user),
             ("item", schema.item_key, training.items, predictions.item))  # fmt: skip
    for name, key, counts, hashes in sides:
        if key:
            slices[name], slices[f"{name}_training_rows"] = _history(counts, hashes)
    return slices


def _history(counts: Counts, hashes: NDArray[np.uint64]) -> tuple[Masks, Masks]:
    rows = counts.rows_of(hashes)
    bands: Masks = {}
    for low, high in zip((0, *HISTORY_CUTS), (*HISTORY_CUTS, None), strict=True):
        label = f"{low}+" if high is None else str(low) if high == low + 1 else f"{low}-{high - 1}"
        mask = rows >= low if high is None else (rows >= low) & (rows < high)
        if mask.any():
            bands[label] = mask
    novelty = {name: mask for name, mask in (("known", rows > 0), ("new", rows == 0)) if mask.any()}
    return novelty, bands


def by_feature(
    names: tuple[str, ...], data: Path, schema: Schema, directory: Path, rows: NDArray[np.int64] | None = None
) -> dict[str, Masks]:
    """The most frequent values of id features, by their raw value where the vocabulary knows it; ranges of numbers.

    `rows` are the numbers of the rows to slice, in the order of reading; None: all.

    Raises:
        ConfigError: neither an id nor a dense feature of the schema.
    """
    specs = {spec.name: spec for spec in schema.features if spec.kind != "id_list"}
    for name in names:
        if name not in specs:
            known = ", ".join([*specs, "day", "hour", "user_activity", "item_activity"])
            message = f"cannot slice by {name!r}: there are {known}"
            raise ConfigError(message)
    columns = EncodedDataset.open(data).read(names) if names else None
    slices: dict[str, Masks] = {}
    for name in names:
        values: NDArray[Any] = columns[name].to_numpy() if columns is not None else np.empty(0)
        values = values if rows is None else values[rows]
        spec = specs[name]
        slices[name] = _ranges(spec, values) if isinstance(spec, DenseSpec) else _values(spec, values, directory)
    return slices


def by_column(names: tuple[str, ...], path: Path, rows: NDArray[np.int64] | None = None) -> dict[str, Masks]:
    """Slices by columns of a file of predictions: the most frequent values, or quarters of numbers with fractions.

    `rows` are the numbers of the rows to slice; None: all.

    Raises:
        ConfigError: the file has no such column.
    """
    slices: dict[str, Masks] = {}
    for name in names:
        try:
            column = file_column(path, name)
        except (KeyError, pa.ArrowInvalid) as error:
            message = f"cannot slice by {name!r}: {path} has no such column; there are also day, hour"
            raise ConfigError(message) from error
        column = (column if rows is None else column.take(pa.array(rows))).combine_chunks()
        if pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)
            slices[name] = _quarters(values, np.isnan(values))
        else:
            slices[name] = _frequent(column)
    return slices


def _frequent(column: pa.Array) -> Masks:
    counts = pc.value_counts(column)
    order = np.argsort(-counts.field("counts").to_numpy(), kind="stable")[:MOST_VALUES]
    masks: Masks = {}
    for value in counts.field("values").take(pa.array(order)):
        mask = pc.is_null(column) if not value.is_valid else pc.fill_null(pc.equal(column, value), fill_value=False)
        masks["null" if not value.is_valid else str(value.as_py())] = mask.to_numpy(zero_copy_only=False)
    return masks


def _values(spec: IdSpec, values: NDArray[np.int32], directory: Path) -> Masks:
    texts = raw_texts(spec, directory)
    ids, counts = np.unique(values, return_counts=True)
    frequent = ids[np.argsort(-counts, kind="stable")][:MOST_VALUES]
    return {texts.get(int(value), f"row {value}"): values == value for value in frequent}


def _ranges(spec: DenseSpec, values: NDArray[np.float32]) -> Masks:
    """Quarters of the rows by a number, named by its raw values where the encoding can be undone, and nulls."""
    return _quarters(*raw_numbers(spec, values))


def _quarters(numbers: NDArray[Any], missing: NDArray[np.bool_]) -> Masks:
    if missing.all():
        return {"null": missing}
    cuts = np.unique(np.quantile(numbers[~missing], (0.25, 0.5, 0.75), method="lower"))
    band = np.searchsorted(cuts, numbers, side="left")
    quarters = {}
    for place in np.unique(band[~missing]):
        mask = ~missing & (band == place)
        quarters[f"{numbers[mask].min():.6g} to {numbers[mask].max():.6g}"] = mask
    return quarters | ({"null": missing} if missing.any() else {})
