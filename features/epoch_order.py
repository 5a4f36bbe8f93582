"""The order in which an epoch reads the rows of row groups, a window of some ten thousand at a time.

A row group is of one partition of the log's days, and is decoded as a whole. So that all days take part in every
window, the row groups of each file are spread over the whole epoch (systematic sampling), and a row group's rows are
dealt in blocks to the windows of a stretch, for which its decoded columns stay in memory (as the shuffle ``py1e`` of
MosaicML's streaming does it). Where the stretch is the whole epoch, every window has its share of each row group.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Mixing(NamedTuple):
    """Rows of a window, about, of a block, about, and of the stretch over which a row group's blocks are dealt.

    `stretch` bounds memory: the row groups of so many rows, and of the windows read at a time, are held decoded.
    """

    window: int
    block: int
    stretch: int


class RowBlock(NamedTuple):
    """Rows `begin` until before `end` of a row group, by its number."""

    group: int
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.end - self.begin


def in_order(sizes: Sequence[int], window: int) -> list[list[RowBlock]]:
    """Whole row groups, of so many rows each, one after the other, as windows."""
    return _windows([RowBlock(group, 0, size) for group, size in enumerate(sizes)], window)


def groups_mixed(
    sizes: Sequence[int], files: Sequence[int], generator: np.random.Generator, window: int
) -> list[list[RowBlock]]:
    """Whole row groups in a random order in which those of each file are spread over the whole epoch, as windows."""
    order = _spread_order(np.asarray(sizes), np.asarray(files), generator)
    return _windows([RowBlock(group, 0, sizes[group]) for group in order.tolist()], window)


def rows_mixed(
    sizes: Sequence[int], files: Sequence[int], generator: np.random.Generator, mixing: Mixing
) -> list[list[RowBlock]]:
    """Blocks of row groups as windows, whose rows are to be mixed: a window has rows of as many files as it can."""
    total = sum(sizes)
    stretch = min(mixing.stretch, total)
    blocks: list[RowBlock] = []
    keys: list[NDArray[np.float64]] = []
    begin = 0
    for group in _spread_order(np.asarray(sizes), np.asarray(files), generator).tolist():
        pieces = max(1, round(sizes[group] / mixing.block))
        edges = np.linspace(0, sizes[group], pieces + 1).astype(np.int64).tolist()
        blocks += [RowBlock(group, edges[piece], edges[piece + 1]) for piece in range(pieces)]
        # One block in each equal part of the stretch, at a random place of it; which one is random, too.
        place = (generator.permutation(pieces) + generator.random(pieces)) / pieces
        keys.append(begin * (total - stretch) / total + place * stretch)
        begin += sizes[group]
    order = np.argsort(np.concatenate(keys), kind="stable") if keys else np.zeros(0, np.int64)
    return _windows([blocks[place] for place in order.tolist()], mixing.window)


def _spread_order(
    sizes: NDArray[np.int64], files: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Row groups in an order in which each stretch has of every file what its share of all rows is, as near as can be.

    A file's row groups, in random order, stand at equal distances in rows, from a random first place on.
    """
    place = np.empty(len(sizes))
    for file in np.unique(files):
        own = generator.permutation(np.flatnonzero(files == file))
        before = np.cumsum(sizes[own]) - sizes[own]
        place[own] = (before + generator.random() * sizes[own]) / sizes[own].sum()
    return np.argsort(place, kind="stable")


def _windows(blocks: list[RowBlock], rows: int) -> list[list[RowBlock]]:
    """Blocks as windows of equally many rows each, about, and no more than `rows` and a block."""
    total = sum(block.rows for block in blocks)
    windows: list[list[RowBlock]] = []
    count = -(-total // rows)
    read, current = 0, list[RowBlock]()
    for block in blocks:
        current.append(block)
        read += block.rows
        if read * count >= total * (len(windows) + 1):
            windows.append(current)
            current = []
    return windows
