"""Read encoded Parquet as batches: columns become NumPy matrices a row group at a time, never a loop over rows."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, TIME, USER_HASH, label_column, task_columns, weight_column
from contract.dataset import EncodedDataset, OpenParts, RowGroup
from contract.errors import DataError
from contract.hashing import mix
from contract.inputs import Batch, Stretch
from contract.schema import Schema
from features.epoch_order import Mixing, RowBlock, groups_mixed, in_order, rows_mixed
from features.gathered_rows import Dealing, Destination, GatheredRows, gather
from features.held_groups import HeldGroups
from features.read_ahead import read_ahead
from features.rows_in_memory import Rows
from features.source.filesystems import filesystem_of

T = TypeVar("T")

MIXING = Mixing(window=65_536, block=2_048, stretch=262_144)
"""Rows that are mixed at a time, those of a block among them, and the stretch that a row group's blocks come from."""


class _OpenByThread(threading.local):
    """Files that stay open from one read to the next: opening them anew for each costs a tenth of the decoding."""

    def __init__(self) -> None:
        self.parts = OpenParts()


class BatchReader:
    """Batches of encoded rows, in the order of reading or, with a seed, in one that changes by epoch.

    With a seed, each epoch permutes the row groups of all parts, evenly over the days, and mixes some ten thousand rows
    at a time, out of blocks of all row groups of a longer stretch (`MIXING`; see `features.epoch_order`). With
    `mix_rows` off, rows stay as they lie in their row group, which saves gathering them. With `by_user`, whole row
    groups are mixed, in which a user's rows stand next to each other, users in an order that changes by epoch: for
    losses that compare them.
    `batch_size` is that of all ranks together: the order of rows and the batches are the same on any number of ranks,
    each of which reads its own part of every batch. A last batch of fewer than `least_rows` rows joins the one before.
    `later_than`, a time as in `TIME`, leaves out rows that are not later, but for a share of `replay`. `with_time`:
    batches have their rows' times.
    """

    def __init__(  # noqa: PLR0913 - options, each by its name and on its own
        self,
        path: Path | str,
        schema: Schema,
        batch_size: int,
        *,
        seed: int | None = None,
        mix_rows: bool = True,
        by_user: bool = False,
        rank: int = 0,
        world: int = 1,
        least_rows: int = 1,
        later_than: int | None = None,
        replay: float = 0.0,
        with_time: bool = False,
    ) -> None:
        """Open a dataset directory or a file, or with a URL a remote one, and check that it is of the schema.

        Raises:
            DataError: nothing there, not Parquet, a column is missing, or it does not say what it was encoded with.
            SchemaMismatchError: it was encoded with another schema.
        """
        self.dataset = EncodedDataset.open(path, filesystem_of(str(path)))
        self.schema, self.batch_size = schema, batch_size
        self._mix_rows, self._by_user = mix_rows, by_user
        # A batch that is full is never too small, so that only a last one that is short can join the one before.
        self._least_rows = min(least_rows, batch_size)
        self._seed, self._rank, self._world = seed, rank, world
        self._with_time = with_time
        self._columns = [*_column_names(schema), *[TIME] * with_time]
        # Rows of another schema lack columns, too, which is not what to mend.
        self.dataset.require(schema)
        missing = [name for name in self._columns if name not in self.dataset.column_names]
        if missing:
            message = f"{path} lacks column {missing[0]!r} of the schema ({len(missing)} missing); rebuild the features"
            raise DataError(message)
        self._kept = None if later_than is None else later_rows(self.dataset, later_than, replay, seed or 0)
        self._read_groups = [group for group in self.dataset.row_groups if self._rows_in(group)]
        self.total_rows: int = sum(map(self._rows_in, self._read_groups))

    @property
    def latest_time(self) -> int | None:
        """The time of the last row of the dataset, whether read or left out; None where rows have no time."""
        if TIME not in self.dataset.column_names or not self.dataset.rows:
            return None
        return int(self.dataset.read([TIME])[TIME].to_numpy().max())

    @property
    def steps(self) -> int:
        """Batches in an epoch, the same on every rank."""
        return len(self.bounds())

    def bounds(self, start: int = 0) -> range:
        """The places, in the epoch's order of rows, at which its batches from row `start` on begin."""
        left = self.total_rows - start
        full, rest = divmod(max(left, 0), self.batch_size)
        batches = full + 1 if rest and (rest >= self._least_rows or full == 0) else full
        return range(start, start + batches * self.batch_size, self.batch_size)

    def batch_end(self, begin: int) -> int:
        """Where, in the epoch's order of rows, the batch ends that begins at a place."""
        end = begin + self.batch_size
        return self.total_rows if self.total_rows - end < self._least_rows else end

    def share(self, begin: int) -> tuple[int, int]:
        """This rank's part of the batch that begins at a place, as places in the epoch's order.

        The parts of all ranks are equally long, as collectives need: where a batch does not divide evenly, the parts of
        some ranks begin with a row that is the rank's before them, too; see `repeated`.
        """
        rows, more = divmod(self.batch_end(begin) - begin, self._world)
        first = begin + self._rank * rows + min(self._rank, more)
        return first - self.repeated(begin), first + rows + (self._rank < more)

    def repeated(self, begin: int) -> int:
        """How many rows at the head of this rank's part of a batch belong to another rank: 0 or 1."""
        more = (self.batch_end(begin) - begin) % self._world
        return int(0 < more <= self._rank)

    def epoch(self, number: int = 0, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """This rank's part of an epoch's batches from row `start` of its order on; the last one may be short.

        `number`, `start` and the seed are the whole state: row groups that lie before are not read. Batches that begin
        at row `stop` or later are left out, and row groups with no others are not read, either.
        """
        for stretch in self.stretches(number, start, stop):
            yield stretch.rows

    def stretches(self, number: int = 0, start: int = 0, stop: int | None = None, rows: int = 1) -> Iterator[Stretch]:
        """The same batches, as many at a time as make up `rows`; one at a time where rows have lists."""
        shares = self._shares(start, stop)
        lists = self.schema.request.lists or self.schema.candidate.lists
        together = 1 if lists else max(1, rows // self.batch_size)
        sizes = [tuple(end - begin for begin, end in each) for each in _in_runs(shares, together)]
        # Small batches are gathered many at a time.
        runs = _in_runs(sizes, max(1, MIXING.window // (together * self.batch_size)))
        gathered = (GatheredRows(run, self.schema, with_time=self._with_time) for run in runs)
        for complete in read_ahead(self._reads(number, shares, gathered)):
            for batches in complete:
                yield from batches.stretches()

    def labels_of(self, task: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A task's labels and weights of all rows, in the file's order."""
        label, weight = label_column(task), weight_column(task)
        table = self._table(self._read_groups, [label, weight])
        return table[label].to_numpy(), table[weight].to_numpy()

    def _rows_in(self, group: RowGroup) -> int:
        return group.rows if self._kept is None else len(self._kept[group])

    def _table(self, groups: list[RowGroup], names: list[str], opened: OpenParts | None = None) -> pa.Table:
        """Columns of the rows of some row groups that are read at all."""
        table = self.dataset.read_groups(groups, names, opened)
        if self._kept is None:
            return table
        begins = np.cumsum([0, *(group.rows for group in groups)])
        return table.take(np.concatenate([self._kept[g] + begin for g, begin in zip(groups, begins, strict=False)]))

    def _shares(self, start: int, stop: int | None) -> list[tuple[int, int]]:
        return [self.share(begin) for begin in self.bounds(start) if stop is None or begin < stop]

    def _reads(
        self, epoch: int, batches: list[tuple[int, int]], gathered: Iterator[GatheredRows]
    ) -> Iterator[Callable[[], list[GatheredRows]]]:
        """How to read windows, in the epoch's order; each says which gathered rows are complete with it.

        Windows fill the gathered rows one after the other with what belongs to some batches of this rank.
        """
        generator = None if self._seed is None else np.random.default_rng([self._seed, epoch])
        mixing = generator if self._mix_rows else None
        salt = np.uint64(epoch) if self._by_user else None
        shares = np.array(batches, dtype=np.int64).reshape(-1, 2)
        groups, begin = self._read_groups, 0
        if generator is None and batches:
            groups, begin = self._between(batches[0][0], batches[-1][1])
        windows = self._windows(groups, generator)
        held = HeldGroups(windows, self._decoder(groups))
        deal = Dealing(gathered)
        for number, rows in enumerate(sum(block.rows for block in window) for window in windows):
            places = _places(shares, begin, begin + rows)
            mixed = None if mixing is None else mixing.permutation(rows)
            if len(places):
                yield functools.partial(self._read, held, number, mixed, salt, *deal(places))
            begin += rows

    def _decoder(self, groups: list[RowGroup]) -> Callable[[list[int]], list[Rows]]:
        """What reads some of the row groups, by number."""
        opened = _OpenByThread()

        def read(numbers: list[int]) -> list[Rows]:
            wanted = [groups[number] for number in numbers]
            table = self._table(wanted, self._columns, opened.parts)
            ends = np.cumsum([self._rows_in(group) for group in wanted]).tolist()
            each = (
                table.slice(end - self._rows_in(group), self._rows_in(group))
                for group, end in zip(wanted, ends, strict=True)
            )
            return [Rows.of(rows, self.schema, with_time=self._with_time) for rows in each]

        return read

    def _windows(self, groups: list[RowGroup], generator: np.random.Generator | None) -> list[list[RowBlock]]:
        sizes = [self._rows_in(group) for group in groups]
        if generator is None:
            return in_order(sizes, MIXING.window)
        files = [group.file for group in groups]
        if self._mix_rows and not self._by_user:
            return rows_mixed(sizes, files, generator, MIXING)
        return groups_mixed(sizes, files, generator, MIXING.window)

    def _between(self, first: int, last: int) -> tuple[list[RowGroup], int]:
        """The row groups of rows `first` until before `last`, in the order of the file, and where the first begins."""
        ends = np.cumsum([self._rows_in(group) for group in self._read_groups])
        one = int(np.searchsorted(ends, first, side="right"))
        return self._read_groups[one : int(np.searchsorted(ends, last)) + 1], int(ends[one - 1]) if one else 0

    @staticmethod
    def _read(
        held: HeldGroups[Rows],
        window: int,
        mixed: NDArray[np.int64] | None,
        salt: np.uint64 | None,
        destinations: list[Destination],
        complete: list[GatheredRows],
    ) -> list[GatheredRows]:
        pieces = [rows.slice(block.begin, block.end) for rows, block in held.window(window)]
        if salt is not None and mixed is not None:
            # Users are brought together among all rows that are mixed, of which this rank then takes its own.
            user = np.concatenate([piece.user for piece in pieces])[mixed]
            mixed = mixed[np.argsort(mix(user ^ salt), kind="stable")]
        if mixed is not None:
            destinations = [to._replace(order=mixed[to.order]) for to in destinations]
        gather(pieces, destinations)
        return complete


def later_rows(dataset: EncodedDataset, time: int, replay: float, seed: int) -> dict[RowGroup, NDArray[np.int64]]:
    """By row group its rows that are later than a time, and of the others so many, at random, as make up `replay`."""
    later = {group: dataset.read_groups([group], [TIME])[TIME].to_numpy() > time for group in dataset.row_groups}
    new = sum(int(rows.sum()) for rows in later.values())
    share = min(replay / (1.0 - replay) * new / max(dataset.rows - new, 1), 1.0)
    dice = np.random.default_rng([seed, time])
    return {group: np.flatnonzero(rows | (dice.random(len(rows)) < share)) for group, rows in later.items()}


def _places(shares: NDArray[np.int64], begin: int, end: int) -> NDArray[np.int64]:
    """Which rows of begin..end lie in one of the shares, counted from `begin`."""
    near = slice(np.searchsorted(shares[:, 1], begin, side="right"), np.searchsorted(shares[:, 0], end))
    parts = [np.arange(max(low, begin), min(high, end)) for low, high in shares[near].tolist()]
    return np.concatenate(parts) - begin if parts else np.zeros(0, dtype=np.int64)


def _in_runs(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """So many at a time, one after the other; the last may be fewer."""
    return [items[first : first + most] for first in range(0, len(items), most)]


def _column_names(schema: Schema) -> list[str]:
    tasks = task_columns(task.name for task in schema.tasks)
    return [*(spec.name for spec in schema.features), *tasks, USER_HASH, ITEM_HASH]
