"""What changed in a file: rows that moved are copied, only new ones are shipped, and nonsense is refused."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import IntegrityError
from contract.sha256 import sha256_of
from serving.store.file_delta import FileDelta, RowSpan, apply_delta, make_delta

HEADER = 13
"""Bytes before the rows, so that nothing is aligned."""


def write(path: Path, rows: NDArray[np.float32]) -> RowSpan:
    path.write_bytes(bytes(range(HEADER)) + rows.tobytes() + b"end")
    return RowSpan(HEADER, len(rows), rows.shape[1] * 4)


def table(rows: int, dim: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)


def roundtrip(folder: Path, old: NDArray[np.float32], new: NDArray[np.float32]) -> FileDelta:
    spans = write(folder / "old", old), write(folder / "new", new)
    make_delta(folder / "old", folder / "new", *[(span,) for span in spans]).save(folder / "delta")
    delta = FileDelta.load(folder / "delta")
    assert apply_delta(folder / "old", delta, folder / "made") == sha256_of(folder / "new")
    assert (folder / "made").read_bytes() == (folder / "new").read_bytes()
    return delta


def test_only_rows_that_changed_are_shipped(tmp_path: Path) -> None:
    new = table(1000)
    new[[3, 500]] += 1
    assert roundtrip(tmp_path, table(1000), new).literal.size == HEADER + 3 + 2 * 20


def test_rows_that_moved_are_copied_from_where_they_were(tmp_path: Path) -> None:
    old, fresh = table(1000), np.full((7, 5), 9, np.float32)
    new = np.concatenate([old[600:], fresh, old[:550]])
    assert roundtrip(tmp_path, old, new).literal.size == HEADER + 3 + 7 * 20


def test_rows_of_zeros_repeat_and_cost_nothing(tmp_path: Path) -> None:
    old, new = np.zeros((100, 5), np.float32), np.zeros((300, 5), np.float32)
    assert roundtrip(tmp_path, old, new).literal.size == HEADER + 3


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (1, 1)])
def test_tables_without_rows_or_with_one_work(tmp_path: Path, sizes: tuple[int, int]) -> None:
    roundtrip(tmp_path, table(sizes[0]), table(sizes[1]))


def test_without_rows_to_go_by_files_are_compared_in_blocks(tmp_path: Path) -> None:
    blocks = np.random.default_rng(1).integers(0, 256, (100, 64), np.uint8)
    (tmp_path / "old").write_bytes(blocks.tobytes())
    blocks[7] = 0
    (tmp_path / "new").write_bytes(blocks.tobytes() + b"more")
    delta = make_delta(tmp_path / "old", tmp_path / "new")
    assert delta.literal.size == 64 + 4
    apply_delta(tmp_path / "old", delta, tmp_path / "made")
    assert (tmp_path / "made").read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize(
    "runs", [[[0, 0, 9]], [[-1, 0, 1]], [[0, 0, 2], [1, 0, 1]], [[0, 0, -2], [0, 0, 4]], [[5, 0, 2]]]
)
def test_runs_that_overlap_or_do_not_fit_are_refused(tmp_path: Path, runs: list[list[int]]) -> None:
    FileDelta(4, np.array(runs, np.int64), np.zeros(2, np.uint8)).save(tmp_path / "delta")
    with pytest.raises(IntegrityError, match="not a delta of a file"):
        FileDelta.load(tmp_path / "delta")


def test_a_shorter_base_than_the_runs_want_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"short")
    delta = FileDelta(9, np.array([[0, 0, 9]]), np.zeros(0, np.uint8))
    with pytest.raises(IntegrityError, match="made against another file"):
        apply_delta(tmp_path / "old", delta, tmp_path / "made")


def test_what_is_no_archive_is_no_delta(tmp_path: Path) -> None:
    (tmp_path / "delta").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(IntegrityError, match="not a delta of a file"):
        FileDelta.load(tmp_path / "delta")
