"""What encoded values were before: numbers out of bins and scales, texts out of rows of embeddings.

Shape legend: N rows.
"""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.schema import DenseSpec, IdSpec
from features.encode.vocabulary import VOCABULARY_FILE


def raw_numbers(spec: DenseSpec, values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers [N] before encoding, as far as it can be undone, and which of them are known to be missing."""
    missing = values < 0 if spec.encoding == "piecewise_linear" else np.zeros(values.size, dtype=bool)
    numbers = (
        np.interp(values, np.arange(len(spec.edges)), spec.edges) if spec.edges else values * spec.scale + spec.mean
    )
    numbers = np.expm1(numbers) if spec.encoding == "log1p" else numbers
    return np.asarray(numbers, dtype=np.float64), missing


def raw_texts(spec: IdSpec, directory: Path) -> dict[int, str]:
    """Raw value by embedding row; row 0 stands for unknown and null."""
    path = directory / VOCABULARY_FILE
    if spec.encoding != "vocabulary" or not path.is_file():
        return {0: "unknown"}
    stored = pq.read_table(path, columns=["table", "value"], page_checksum_verification=True)
    mine = stored.filter(pc.equal(stored["table"], spec.table_name))["value"].to_pylist()
    texts = {row: "unknown" if value is None else str(value) for row, value in enumerate(mine, start=1)}
    return {0: "unknown", **texts, **({1: "null"} if spec.null_row else {})}
