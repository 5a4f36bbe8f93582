"""Online tables: encoded features by key or by tuple of keys, memory-mapped, so that a request costs lookups.

One directory per table holds NumPy arrays (never pickled): key hashes and their index, ids, dense, packed lists, and
the hashes of attributes that key other tables. The last row of each array is what an unknown key gets.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.hashing import Hashes
from features.online.hash_index import HashIndex
from features.point_in_time.ragged import Ragged

META_FILE = "table.json"
Arrays = Callable[[Path], NDArray[Any]]
"""What makes an array of a file."""


def mapped_array(path: Path) -> NDArray[Any]:
    """Map an array into memory.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        # Plain arrays over the mapped pages: a memmap costs a microsecond more at each call.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        message = (
            f"{path} is missing or damaged ({error}); rebuild the features, or export the model, with this version"
        )
        raise DataError(message) from error


class TableRows(NamedTuple):
    """What a table has about n keys: `known` [n], `ids` [n, F], `dense` [n, D], `key_hashes` [n, K].

    `lists` holds n lists by name. `rows` [n]: where in the table the keys stand, if that was asked.
    """

    known: NDArray[np.bool_]
    ids: NDArray[np.int32]
    dense: NDArray[np.float32]
    key_hashes: Hashes
    lists: dict[str, Ragged]
    rows: NDArray[np.int64] | None = None


class Lookup(Protocol):
    """Where encoded features of an entity are looked up: an `OnlineTable`, or a store that changes under way."""

    @property
    def id_names(self) -> tuple[str, ...]:
        """The id features, in the order of their columns."""

    @property
    def dense_names(self) -> tuple[str, ...]:
        """The dense features, in the order of their columns."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """The attributes that key other tables, in the order of their columns."""

    def lookup(self, hashes: Hashes) -> TableRows:
        """The rows of the keys with these hashes [n]; unknown keys get the unknown row."""


@dataclass(frozen=True)
class OnlineTable:
    """n keys, then the row of the unknown key: `ids` [n + 1, F], `dense` [n + 1, D], `key_hashes` [n + 1, K].

    `keys` are distinct hashes other than 0; `index` is made from them where it is not given. `halves` [n + 1, H] are
    the numbers that are kept in half precision; `dense_names` has the D names and after them the H.
    """

    keys: Hashes
    ids: NDArray[np.int32]
    dense: NDArray[np.float32]
    key_hashes: Hashes
    lists: dict[str, Ragged] = field(default_factory=dict)
    id_names: tuple[str, ...] = ()
    dense_names: tuple[str, ...] = ()
    key_names: tuple[str, ...] = ()
    index: HashIndex = field(default_factory=lambda: HashIndex.build(np.zeros(0, dtype=np.uint64)))
    halves: NDArray[np.float16] = field(default_factory=lambda: np.empty((0, 0), np.float16))

    def __post_init__(self) -> None:
        if len(self.keys) and not self.index.hashes.any():
            object.__setattr__(self, "index", HashIndex.build(self.keys))

    @property
    def half_names(self) -> tuple[str, ...]:
        """The dense features that `halves` holds."""
        return self.dense_names[self.dense.shape[1] :]

    def find(self, hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row of each key hash, and whether it is known; the unknown get the last row."""
        return self.index.find(hashes, len(self.keys))

    def lookup(self, hashes: Hashes) -> TableRows:
        """The features of each key, in the order of the hashes."""
        return self.at(*self.find(hashes))

    def at(self, rows: NDArray[np.int64], known: NDArray[np.bool_]) -> TableRows:
        """The features of rows [n]; `known` says which of them the table has."""
        count = len(rows)
        return TableRows(
            known,
            self.ids.take(rows, axis=0) if self.id_names else np.empty((count, 0), np.int32),
            self._numbers(rows) if self.dense_names else np.empty((count, 0), np.float32),
            self.key_hashes.take(rows, axis=0) if self.key_names else np.empty((count, 0), np.uint64),
            {name: column.take(rows) for name, column in self.lists.items()},
        )

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        dense = self.dense.take(rows, axis=0)
        if not self.half_names:
            return dense
        return np.concatenate([dense, self.halves.take(rows, axis=0).astype(np.float32)], axis=1)

    def save(self, directory: Path) -> None:
        """Write the table into a new directory."""
        directory.mkdir(parents=True)
        arrays: dict[str, NDArray[Any]] = {
            "keys": self.keys, "ids": self.ids, "dense": self.dense, "key_hashes": self.key_hashes,
            "slot_hashes": self.index.hashes, "slot_rows": self.index.rows,
        }  # fmt: skip
        if self.half_names:
            arrays["halves"] = self.halves
        for name, array in arrays.items():
            np.save(directory / f"{name}.npy", array, allow_pickle=False)
        for number, column in enumerate(self.lists.values()):
            np.save(directory / f"list_{number}_values.npy", column.values, allow_pickle=False)
            np.save(directory / f"list_{number}_offsets.npy", column.offsets, allow_pickle=False)
        meta = {"ids": self.id_names, "dense": self.dense_names, "keys": self.key_names, "lists": list(self.lists)}
        meta |= {"halves": self.half_names} if self.half_names else {}
        (directory / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, directory: Path, arrays: Arrays = mapped_array) -> Self:
        """Open a table whose arrays come from `arrays`, by default mapped into memory.

        Raises:
            DataError: an array is missing or damaged, or was written by another version.
        """
        meta = json.loads((directory / META_FILE).read_text(encoding="utf-8"))

        def mapped(name: str) -> NDArray[np.generic]:
            return arrays(directory / f"{name}.npy")

        lists = {
            name: Ragged(
                values=mapped(f"list_{number}_values").view(np.int32),
                offsets=mapped(f"list_{number}_offsets").view(np.int64),
            )
            for number, name in enumerate(meta["lists"])
        }
        return cls(
            keys=mapped("keys").view(np.uint64),
            ids=mapped("ids").view(np.int32),
            dense=mapped("dense").view(np.float32),
            key_hashes=mapped("key_hashes").view(np.uint64),
            lists=lists,
            id_names=tuple(meta["ids"]),
            dense_names=tuple(meta["dense"]),
            key_names=tuple(meta["keys"]),
            index=HashIndex(mapped("slot_hashes").view(np.uint64), mapped("slot_rows").view(np.int32)),
            **({"halves": mapped("halves").view(np.float16)} if "halves" in meta else {}),
        )


class RowsOf:
    """A table that is asked only for row numbers and for the keys of other tables."""

    id_names: tuple[str, ...] = ()
    dense_names: tuple[str, ...] = ()

    def __init__(self, table: OnlineTable) -> None:
        """Look keys up in this table."""
        self.table = table
        self.key_names = table.key_names

    def lookup(self, hashes: Hashes) -> TableRows:
        """As `OnlineTable.lookup`, without features."""
        rows, known = self.table.find(hashes)
        keys = self.table.key_hashes.take(rows, axis=0) if self.key_names else np.empty((len(rows), 0), np.uint64)
        return TableRows(
            known, np.empty((len(rows), 0), np.int32), np.empty((len(rows), 0), np.float32), keys, {}, rows
        )


@dataclass(frozen=True)
class OnlineTables:
    """The user's and the item's table, and one per tuple of keys for pair features; either entity may be absent."""

    user: OnlineTable | None
    item: OnlineTable | None
    pairs: dict[tuple[str, ...], OnlineTable]

    def by_name(self) -> dict[str, OnlineTable]:
        """``user``, ``item``, and ``pair_0`` and so on in their order."""
        entities = {"user": self.user, "item": self.item}
        pairs = {f"pair_{number}": table for number, table in enumerate(self.pairs.values())}
        return {name: table for name, table in entities.items() if table is not None} | pairs

    def save(self, directory: Path) -> None:
        """Write all tables into a new directory."""
        directory.mkdir(parents=True)
        for name, table in self.by_name().items():
            table.save(directory / name)
        index = {"pairs": [list(keys) for keys in self.pairs]}
        (directory / "tables.json").write_text(json.dumps(index) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, directory: Path, arrays: Arrays = mapped_array) -> Self:
        """Open all tables of a directory; `arrays` as in `OnlineTable.open`.

        Raises:
            DataError: the directory holds no online tables.
        """
        index = directory / "tables.json"
        if not index.is_file():
            message = f"no online tables in {directory}; build features first with `moerank features CONFIG`"
            raise DataError(message)
        pairs = json.loads(index.read_text(encoding="utf-8"))["pairs"]
        user, item = (
            OnlineTable.open(directory / name, arrays) if (directory / name).is_dir() else None
            for name in ("user", "item")
        )
        tables = {
            tuple(keys): OnlineTable.open(directory / f"pair_{number}", arrays) for number, keys in enumerate(pairs)
        }
        return cls(user=user, item=item, pairs=tables)
