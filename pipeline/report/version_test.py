"""What the paired test of a new model against the version that is served found: whole and by slice."""

from pathlib import Path
from typing import Self

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.comparing.paired_test import Difference
from pipeline.evaluation.comparing.slice_differences import SliceDifference

AGAINST_FILE = "against_current.json"


class AgainstCurrent(Settings):
    """What was compared, on which rows, and what was found: by task for its headline metric, for all metrics, by slice.

    In each difference A is the current version and B the new model. `untested` are slices with too few users.
    """

    version: int
    rows: int
    first: str
    last: str
    tasks: dict[str, Difference]
    differences: dict[str, dict[str, Difference]] = {}
    slices: tuple[SliceDifference, ...] = ()
    untested: tuple[str, ...] = ()

    def save(self, directory: Path) -> None:
        """Write ``against_current.json``."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / AGAINST_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where nothing was compared.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / AGAINST_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"{directory / AGAINST_FILE} cannot be read: {error}; publish the run again"
            raise DataError(message) from error
