"""What a loaded version holds of its bundle, by sha256, so that the next version takes over what did not change."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from features.online.online_table import mapped_array
from serving.store.bundle import Bundle


class HeldArrays:
    """The arrays of a verified bundle: mapped into memory, or those of the version before where they are the same.

    An array that is taken over stays as it was verified then; its new copy on the disk is not read.
    """

    def __init__(self, bundle: Bundle, before: "HeldArrays | None" = None) -> None:
        """Arrays of this bundle's files; of the version `before`, nothing is kept that this one does not need."""
        self._digests = {bundle.path / name: entry.sha256 for name, entry in bundle.manifest.files.items()}
        self._before = {} if before is None else dict(before.arrays)
        self.arrays: dict[str, NDArray[Any]] = {}
        """By sha256 of their files."""
        self.taken_over = 0
        """How many are those of the version before."""

    def __call__(self, path: Path) -> NDArray[Any]:
        """The array of a file.

        Raises:
            DataError: it is missing or damaged.
        """
        digest = self._digests[path]
        if digest not in self.arrays:
            known = self._before.get(digest)
            self.taken_over += known is not None
            self.arrays[digest] = mapped_array(path) if known is None else known
        return self.arrays[digest]

    def settle(self) -> None:
        """Let go of the version before."""
        self._before = {}
