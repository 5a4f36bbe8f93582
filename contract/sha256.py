"""The one digest of bytes: SHA-256 in hexadecimal digits."""

import hashlib
from io import BufferedIOBase
from pathlib import Path

Chunk = bytes | bytearray | memoryview


def sha256_of(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return sha256_of_stream(file)


def sha256_of_stream(stream: BufferedIOBase) -> str:
    """The digest of what a stream still holds."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_bytes(*chunks: Chunk) -> str:
    """The digest of chunks, one after the other.

    Example:
        >>> sha256_of_bytes(b"ab", b"c") == sha256_of_bytes(b"abc")
        True
    """
    running = RunningSha256()
    running.update(*chunks)
    return running.digest()


class RunningSha256:
    """A digest that can be read while more is added.

    Example:
        >>> running = RunningSha256()
        >>> running.update(b"ab")
        >>> running.update(b"c")
        >>> running.digest() == sha256_of_bytes(b"abc")
        True
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._hash = hashlib.sha256()

    def update(self, *chunks: Chunk) -> None:
        """Add chunks."""
        for chunk in chunks:
            self._hash.update(chunk)

    def digest(self) -> str:
        """The digest of all that was added so far."""
        return self._hash.hexdigest()
