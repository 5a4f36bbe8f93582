"""The period of a model's training rows, so that it is not judged on them by mistake."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from contract.columns import TIME
from contract.dataset import DATASET_MANIFEST, EncodedDataset
from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from features.incremental.splits import SPLIT_NAMES, TRAIN

TRAINED_ROWS_FILE = "trained_rows.json"


class TrainedRows(Settings):
    """``trained_rows.json`` of a bundle: the times of the first and the last training row, in ms since 1970."""

    first_ms: int
    last_ms: int

    @classmethod
    def of_build(cls, features: Path) -> Self | None:
        """Those of a features build; None where its training rows are not there or have no times."""
        if not (features / SPLIT_NAMES[TRAIN] / DATASET_MANIFEST).is_file():
            return None
        rows = EncodedDataset.open(features / SPLIT_NAMES[TRAIN])
        if TIME not in rows.column_names or rows.rows == 0:
            return None
        times = rows.read([TIME])[TIME].to_numpy()
        return cls(first_ms=int(times.min()), last_ms=int(times.max()))

    def save(self, directory: Path) -> None:
        """Write it into a bundle."""
        write_text(self.model_dump_json() + "\n", directory / TRAINED_ROWS_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where a bundle does not tell, such as an older one.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / TRAINED_ROWS_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            message = f"{directory / TRAINED_ROWS_FILE} cannot be read: {error}; export the run again"
            raise DataError(message) from error

    def note(self, times: NDArray[np.int64]) -> list[str]:
        """What to say of figures on rows of these times [N]; nothing where all are later than the training rows.

        Example:
            >>> TrainedRows(first_ms=0, last_ms=86_400_000).note(np.array([86_400_001]))
            []
        """
        within = int(np.count_nonzero((times >= self.first_ms) & (times <= self.last_ms)))
        if within == 0:
            return []
        last = datetime.fromtimestamp(self.last_ms / 1000, UTC)
        message = (
            f"{within:,} of these {times.size:,} rows are of times that the model's training rows cover, until "
            f"{last:%Y-%m-%d %H:%M} UTC, so it may have learned from these very rows; for a fair figure take later days"
        )
        return [message]
