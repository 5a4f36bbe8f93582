"""Where each feature's columns lie in the network's input matrix.

The request part comes first and the candidate part after it, so that a first layer can be split in two.
"""

from dataclasses import dataclass

from features.inputs import PartName
from features.schema import IdSpec, Part, Schema


@dataclass(frozen=True)
class PartLayout:
    """One part's columns: embeddings of ids, embeddings of lists, raw dense scalars, expanded dense scalars.

    `raw` are dense columns taken as they are; `source` and `lower` say, for each expanded component b of a position
    p, the column of p and b itself, so that the component is clip(p - b, 0, 1).
    """

    name: PartName
    ids: tuple[IdSpec, ...]
    lists: tuple[IdSpec, ...]
    raw: tuple[int, ...]
    source: tuple[int, ...]
    lower: tuple[int, ...]

    def width(self, embedding_dim: int) -> int:
        """How many columns of the input matrix the part fills."""
        return (len(self.ids) + len(self.lists)) * embedding_dim + len(self.raw) + len(self.source)


def part_layout(name: PartName, part: Part) -> PartLayout:
    """Lay out a part's features."""
    expanded = [(column, lower) for column, spec in enumerate(part.dense) for lower in range(spec.bins)]
    return PartLayout(
        name=name,
        ids=part.ids,
        lists=part.lists,
        raw=tuple(column for column, spec in enumerate(part.dense) if spec.bins == 0),
        source=tuple(column for column, _ in expanded),
        lower=tuple(lower for _, lower in expanded),
    )


def layouts(schema: Schema) -> tuple[PartLayout, PartLayout]:
    """The request's and the candidate's layout."""
    return part_layout("request", schema.request), part_layout("candidate", schema.candidate)
