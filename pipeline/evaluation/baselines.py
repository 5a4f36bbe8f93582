"""Baselines that every model has to beat: the training mean, and each item's own training mean.

Shape legend: N rows, T tasks, I items, U users.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, USER_HASH, label_column, weight_column
from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.schema import Schema
from pipeline.evaluation.ranking import Floats

SMOOTHING = 20.0
"""An item's mean is drawn towards the mean of all as by this many rows."""


@dataclass(frozen=True)
class Counts:
    """Distinct hashes in rising order, uint64 [K], and the training rows of each, int64 [K]."""

    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The position of each key, or -1 where it is not among them."""
        if self.keys.size == 0:
            return np.full(keys.size, -1)
        place = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def rows_of(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Training rows of each key; 0 for unknown ones."""
        place = self.find(keys)
        known = place >= 0
        rows = np.zeros(keys.size, dtype=np.int64)
        rows[known] = self.rows[place[known]]
        return rows


@dataclass(frozen=True)
class TrainingRows:
    """What baselines and slices know of the training rows; label sums and applicable rows by item are [I, T]."""

    users: Counts
    items: Counts
    label_sums: Floats
    label_rows: Floats

    def means(self) -> Floats:
        """Mean label of each task, [T]; 0 where no training row has it."""
        rows = self.label_rows.sum(axis=0)
        return np.divide(self.label_sums.sum(axis=0), rows, out=np.zeros(rows.size), where=rows > 0)

    def constant(self, rows: int) -> NDArray[np.float32]:
        """The training mean for every row, [N, T]."""
        return np.tile(self.means().astype(np.float32), (rows, 1))

    def popularity(self, items: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Each item's training mean label, smoothed; the mean of all for items that training has not seen: [N, T]."""
        means = self.means()
        smoothed = (self.label_sums + SMOOTHING * means) / (self.label_rows + SMOOTHING)
        place = self.items.find(items)
        return np.where((place >= 0)[:, None], smoothed[place], means).astype(np.float32)


def read_training(path: Path, schema: Schema) -> TrainingRows:
    """Read users, items and labels of the encoded training rows.

    Raises:
        DataError: nothing there, a column is missing, or there are no rows.
        SchemaMismatchError: the rows were encoded with another schema.
    """
    tasks = [task.name for task in schema.tasks]
    labels, weights = [label_column(name) for name in tasks], [weight_column(name) for name in tasks]
    columns = [USER_HASH, ITEM_HASH, *labels, *weights]
    rows = EncodedDataset.open(path)
    missing = [name for name in columns if name not in rows.column_names]
    if missing or rows.rows == 0:
        what = f"lacks column {missing[0]!r}" if missing else "has no rows"
        message = f"{path} {what}, but baselines are learned from it; build features with `moerank features CONFIG`"
        raise DataError(message)
    rows.require(schema)
    table = rows.read(columns)
    items, group = np.unique(table[ITEM_HASH].to_numpy(), return_inverse=True)
    sums, labelled = [], []
    for label, weight in zip(labels, weights, strict=True):
        applies = table[weight].to_numpy() > 0
        sums.append(np.bincount(group, weights=np.where(applies, table[label].to_numpy(), 0.0)))
        labelled.append(np.bincount(group, weights=applies))
    return TrainingRows(
        users=_count(table[USER_HASH].to_numpy()),
        items=Counts(items, np.bincount(group)),
        label_sums=np.stack(sums, axis=1),
        label_rows=np.stack(labelled, axis=1),
    )


def _count(keys: NDArray[Any]) -> Counts:
    distinct, rows = np.unique(keys, return_counts=True)
    return Counts(distinct, rows)
