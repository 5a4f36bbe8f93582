"""What is ranked together: rows of one user, or of one value of another column."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from contract.dataset import EncodedDataset
from contract.errors import ConfigError
from pipeline.evaluation.predictions import Predictions, read_stretch


def by_lists(stretches: Iterable[Predictions], key: str, data: Path | None = None) -> Iterator[Predictions]:
    """Stretches of rows in the order of reading, with their `lists` where these are not the users.

    Args:
        stretches: All rows.
        key: ``user``, ``item``, or the name of an id feature of the encoded rows.
        data: The encoded rows; None where the rows come out of a file of predictions.

    Raises:
        ConfigError: `data` have no such feature.
    """
    if key == "user":
        yield from stretches
        return
    dataset = None if data is None or key == "item" else EncodedDataset.open(data)
    if key != "item" and (dataset is None or key not in dataset.column_names):
        known = "name its column, as in --columns list=session" if dataset is None else _offered(dataset)
        message = f"lists_by: {key!r} is neither user nor item; {known}"
        raise ConfigError(message)
    done = 0
    for rows in stretches:
        lists = rows.item if dataset is None else read_stretch(dataset, key, done, done + rows.rows)
        if lists.dtype.kind not in "iu":
            message = f"lists_by: {key!r} holds {lists.dtype}, but lists go by an id feature"
            raise ConfigError(message)
        yield replace(rows, lists=lists.astype(np.uint64))
        done += rows.rows


def _offered(dataset: EncodedDataset) -> str:
    """The id features: columns of whole numbers that are not of our own making."""
    schema = dataset.footers[0].schema.to_arrow_schema()
    names = [field.name for field in schema if pa.types.is_integer(field.type) and not field.name.startswith("__")]
    return f"there are the id features {', '.join(names)}" if names else "these rows have no id features"
