"""Where the embedding tables lie, in words: which, how large, on which ranks, and why.

The planner's choice is a plan of shards that nobody reads; a person asks why a card is full or a rank is slow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True)
class TablePlace:
    """A table: its rows and width, how it is sharded, the bytes on each rank, and whether the recipe asked for it.

    `in_host`: it lies in the host's memory, with a cache on the card.
    """

    name: str
    rows: int
    dim: int
    sharding: str
    bytes_by_rank: Mapping[int, int]
    asked: bool = False
    in_host: bool = False

    @property
    def bytes(self) -> int:
        """Of all ranks together, without the optimiser's state."""
        return sum(self.bytes_by_rank.values())

    @property
    def why(self) -> str:
        """The reason in a few words."""
        if self.asked:
            return "as train.tables says"
        if self.sharding == "row_wise":
            return "its rows are shared out, which the planner found cheaper than one rank with all of them"
        return "whole on one rank, which needs no sums over ranks"

    @property
    def memory(self) -> str:
        """Where its rows are kept, where that is not the memory of what trains."""
        return ", in the host's memory with a cache on the card, which could not hold it" if self.in_host else ""

    def __str__(self) -> str:
        """One line."""
        where = ", ".join(f"rank {rank} {size(count)}" for rank, count in sorted(self.bytes_by_rank.items()))
        what = f"{self.name}: {self.rows:,} rows of {self.dim}, {self.sharding.replace('_', '-')}"
        return f"{what}, {where}: {self.why}{self.memory}"


def size(count: int) -> str:
    """Bytes for a person.

    Example:
        >>> size(11 * 16 * 4), size(1_900_000 * 64)
        ('704 bytes', '116.0 MiB')
    """
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def in_words(places: Sequence[TablePlace], *, most: int = 8) -> list[str]:
    """Lines on the largest tables, one on the others together, and the sum by rank."""
    ordered = sorted(places, key=lambda place: -place.bytes)
    lines = [f"table {place}" for place in ordered[:most]]
    rest = ordered[most:]
    if rest:
        lines.append(f"{len(rest)} smaller tables: {size(sum(place.bytes for place in rest))} together")
    ranks: dict[int, int] = {}
    for place in places:
        for rank, count in place.bytes_by_rank.items():
            ranks[rank] = ranks.get(rank, 0) + count
    by_rank = ", ".join(f"rank {rank} {size(count)}" for rank, count in sorted(ranks.items()))
    return [*lines, f"tables in all: {by_rank}, besides the optimiser's state"] if ranks else lines
