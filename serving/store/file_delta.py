"""What changed in a file since another one: runs of bytes that were there before, and the bytes that were not.

The maker is told where rows of tables lie and looks for each row's content among the base's rows, so a vocabulary that
grew in the middle, or in another order, ships only what is new. Whoever applies a delta needs to know no row: it copies
runs of the base and fills the gaps, and compares the sha256 of what came out.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from contract.errors import IntegrityError
from contract.sha256 import RunningSha256

BLOCK_BYTES = 64
"""The row size assumed for a file without described rows."""
_CHUNK = 2**24
_MIXING = 0x9E3779B97F4A7C15
Bytes = NDArray[np.uint8]


class RowSpan(NamedTuple):
    """Where a file holds rows of equal size: `rows` of `row_bytes` from byte `offset` on."""

    offset: int
    rows: int
    row_bytes: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.rows * self.row_bytes


class FileDelta(NamedTuple):
    """`runs` int64 [R, 3]: target offset, base offset and length, by target; `literal`: the bytes of all gaps."""

    size: int
    runs: NDArray[np.int64]
    literal: Bytes

    def save(self, path: Path) -> None:
        """Write it as a compressed archive of plain arrays."""
        with path.open("wb") as file:
            np.savez_compressed(file, size=np.array([self.size]), runs=self.runs, literal=self.literal)

    @classmethod
    def load(cls, path: Path) -> "FileDelta":
        """Read what `save` wrote.

        Raises:
            IntegrityError: it is none, or its runs do not lie one behind the other within the file.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
                delta = cls(int(held["size"][0]), held["runs"], held["literal"])
            _require_order(delta)
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile, zlib.error) as error:
            message = f"{path} is not a delta of a file ({error}); push the version again"
            raise IntegrityError(message) from error
        return delta


def make_delta(
    base: Path, target: Path, base_spans: Sequence[RowSpan] = (), spans: Sequence[RowSpan] = ()
) -> FileDelta:
    """What `target` has that `base` has not; without spans, both are blocks of `BLOCK_BYTES`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_bytes(bytes(range(128))), (folder / "b").write_bytes(bytes(range(64)) * 2)
        >>> delta = make_delta(folder / "a", folder / "b")
        >>> delta.runs.tolist(), delta.literal.size
        ([[0, 0, 64], [64, 0, 64]], 0)
    """
    old, new = _mapped(base), _mapped(target)
    base_spans = base_spans or (RowSpan(0, len(old) // BLOCK_BYTES, BLOCK_BYTES),)
    spans = spans or (RowSpan(0, len(new) // BLOCK_BYTES, BLOCK_BYTES),)
    runs = np.concatenate([_of_span(old, new, base_spans, span) for span in sorted(spans)])
    starts, ends = np.append(runs[:, 0], len(new)), np.append(0, runs[:, 0] + runs[:, 2])
    gaps = [new[begin:end] for begin, end in zip(ends.tolist(), starts.tolist(), strict=True)]
    return FileDelta(len(new), runs, np.concatenate(gaps))


def apply_delta(base: Path, delta: FileDelta, target: Path) -> str:
    """Write the file that a delta makes of its base.

    Returns:
        The sha256 of what was written.

    Raises:
        IntegrityError: the delta reads beyond the base.
    """
    old = _mapped(base)
    if len(delta.runs) and int((delta.runs[:, 1] + delta.runs[:, 2]).max()) > len(old):
        message = f"the delta of {target.name} reads beyond the end of {base}: it was made against another file"
        raise IntegrityError(message)
    digest = RunningSha256()
    with target.open("wb") as file:
        for piece in _joined(_pieces(old, delta)):
            file.write(piece)
            digest.update(piece)
    return digest.digest()


def _pieces(old: Bytes, delta: FileDelta) -> Iterator[Bytes]:
    place = used = 0
    for start, source, length in delta.runs.tolist():
        yield delta.literal[used : used + start - place]
        used += start - place
        yield old[source : source + length]
        place = start + length
    yield delta.literal[used:]


def _joined(pieces: Iterator[Bytes]) -> Iterator[bytes]:
    """The same bytes in large writes."""
    waiting, size = list[Bytes](), 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield np.concatenate(waiting).tobytes()
            waiting, size = [], 0
    yield b"".join(piece.tobytes() for piece in waiting)


def _of_span(old: Bytes, new: Bytes, base_spans: Sequence[RowSpan], span: RowSpan) -> NDArray[np.int64]:
    """Runs for one span: rows that lie where they lay, then rows that are found elsewhere."""
    alike = [each for each in base_spans if each.row_bytes == span.row_bytes and each.rows]
    if not alike or not span.rows:
        return np.zeros((0, 3), np.int64)
    rows = _rows(new, span)
    base_rows = np.concatenate([_rows(old, each) for each in alike])
    offsets = np.concatenate([each.offset + np.arange(each.rows) * each.row_bytes for each in alike])
    # The same place first: where rows repeat (zeros above all), runs then stay long.
    source = np.full(span.rows, -1, np.int64)
    same = np.arange(min(span.rows, alike[0].rows))
    same = same[(rows[: len(same)] == base_rows[: len(same)]).all(axis=1)]
    source[same] = offsets[same]
    missing = np.flatnonzero(source < 0)
    places = _find(base_rows, rows[missing])
    source[missing[places >= 0]] = offsets[places[places >= 0]]
    return _runs(source, span)


def _find(base_rows: Bytes, rows: Bytes) -> NDArray[np.int64]:
    """For each row, a row of the base with the same bytes, or -1."""
    keys, wanted = _keys(base_rows), _keys(rows)
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    candidate = order[at]
    return np.where((base_rows[candidate] == rows).all(axis=1), candidate, -1)


def _keys(rows: Bytes) -> NDArray[np.uint64]:
    """A number for each row's content; rows are compared whole before they count as the same."""
    words = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    words[:, : rows.shape[1]] = rows
    keys = np.zeros(len(rows), np.uint64)
    with np.errstate(over="ignore"):
        for column in words.view(np.uint64).T:
            keys = (keys ^ column) * np.uint64(_MIXING)
            keys ^= keys >> np.uint64(29)
    return keys


def _runs(source: NDArray[np.int64], span: RowSpan) -> NDArray[np.int64]:
    """Neighbours whose sources are neighbours, joined."""
    known = np.flatnonzero(source >= 0)
    if not len(known):
        return np.zeros((0, 3), np.int64)
    follows = (np.diff(known) == 1) & (np.diff(source[known]) == span.row_bytes)
    first = known[np.append(True, ~follows)]
    last = known[np.append(~follows, True)]
    return np.stack([span.offset + first * span.row_bytes, source[first], (last - first + 1) * span.row_bytes], axis=1)


def _rows(content: Bytes, span: RowSpan) -> Bytes:
    return content[span.offset : span.end].reshape(span.rows, span.row_bytes)


def _mapped(path: Path) -> Bytes:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def _require_order(delta: FileDelta) -> None:
    runs = delta.runs
    if runs.ndim != 2 or runs.shape[1] != 3 or runs.dtype != np.int64 or delta.literal.dtype != np.uint8:  # noqa: PLR2004 columns
        message = "it holds other arrays"
        raise ValueError(message)
    ends = runs[:, 0] + runs[:, 2]
    fits = delta.size == int(runs[:, 2].sum()) + len(delta.literal)
    if not fits or (runs < 0).any() or (len(runs) and (ends[-1] > delta.size or (runs[1:, 0] < ends[:-1]).any())):
        message = "its runs overlap or do not fill the file"
        raise ValueError(message)
