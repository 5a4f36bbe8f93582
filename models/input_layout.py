"""Where each feature's columns lie in the network's input matrix.

The request part comes first and the candidate part after it, so that a first layer can be split in two.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from contract.errors import ConfigError
from contract.inputs import PartName
from contract.schema import DenseSpec, IdSpec, Part, Schema


class TableDims(NamedTuple):
    """Columns of an embedding: `default`, or what `by_table` says of its table."""

    default: int
    by_table: Mapping[str, int] = MappingProxyType({})

    def of(self, spec: IdSpec) -> int:
        """Those of a feature's embedding.

        Example:
            >>> dims = TableDims(16, {"user": 32})
            >>> [dims.of(IdSpec(name=name, kind="id", side="user", rows=9)) for name in ("user", "tab")]
            [32, 16]
        """
        return self.by_table.get(spec.table_name, self.default)


class FeatureColumns(NamedTuple):
    """A feature and its columns."""

    spec: IdSpec | DenseSpec
    columns: tuple[int, ...]


@dataclass(frozen=True)
class PartLayout:
    """One part's columns: embeddings of ids, then of lists, raw dense scalars, expanded ones, marks of nulls.

    `raw` are dense columns taken as they are; `source` and `lower` say, for each expanded component b of a position
    p, the column of p and b itself, so that the component is clip(p - b, 0, 1). `nulls` are the columns whose nulls
    (at position -1) have a component of their own, clip(-p, 0, 1).
    """

    name: PartName
    ids: tuple[IdSpec, ...]
    lists: tuple[IdSpec, ...]
    dense: tuple[DenseSpec, ...]
    raw: tuple[int, ...]
    source: tuple[int, ...]
    lower: tuple[int, ...]
    nulls: tuple[int, ...]

    def width(self, dims: TableDims) -> int:
        """How many columns of the input matrix the part fills."""
        dense = len(self.raw) + len(self.source) + len(self.nulls)
        return sum(dims.of(spec) for spec in (*self.ids, *self.lists)) + dense

    def features(self, dims: TableDims, first: int) -> Iterator[FeatureColumns]:
        """Each feature with its columns, the part's first column being `first`."""
        for spec in (*self.ids, *self.lists):
            yield FeatureColumns(spec, tuple(range(first, first + dims.of(spec))))
            first += dims.of(spec)
        expanded = first + len(self.raw)
        marks = {column: expanded + len(self.source) + place for place, column in enumerate(self.nulls)}
        for column, places in self._raw_features():
            yield FeatureColumns(self.dense[column], tuple(first + place for place in places))
        for column in dict.fromkeys(self.source):
            bins = self.dense[column].bins
            mark = (marks[column],) if column in marks else ()
            yield FeatureColumns(self.dense[column], (*range(expanded, expanded + bins), *mark))
            expanded += bins

    def _raw_features(self) -> Iterator[tuple[int, list[int]]]:
        """A dense column of each raw feature and its places among the raw ones: a vector is one feature."""
        places: dict[str, list[int]] = {}
        for place, column in enumerate(self.raw):
            places.setdefault(self.dense[column].vector or self.dense[column].name, []).append(place)
        for each in places.values():
            yield self.raw[each[0]], each


def part_layout(name: PartName, part: Part) -> PartLayout:
    """Lay out a part's features."""
    expanded = [(column, lower) for column, spec in enumerate(part.dense) for lower in range(spec.bins)]
    return PartLayout(
        name=name,
        ids=part.ids,
        lists=part.lists,
        dense=part.dense,
        raw=tuple(column for column, spec in enumerate(part.dense) if spec.bins == 0),
        source=tuple(column for column, _ in expanded),
        lower=tuple(lower for _, lower in expanded),
        nulls=tuple(column for column, spec in enumerate(part.dense) if spec.bins and spec.null_bin),
    )


def layouts(schema: Schema) -> tuple[PartLayout, PartLayout]:
    """The request's and the candidate's layout."""
    return part_layout("request", schema.request), part_layout("candidate", schema.candidate)


def feature_columns(schema: Schema, dims: TableDims) -> list[FeatureColumns]:
    """Every feature with its columns of the input matrix, in their order."""
    request, candidate = layouts(schema)
    return [*request.features(dims, 0), *candidate.features(dims, request.width(dims))]


def columns_of(features: Sequence[FeatureColumns], names: Sequence[str], where: str) -> list[int]:
    """The columns of some features by name; `where` is the key that names them.

    Raises:
        ConfigError: a name that is not a feature.
    """
    by_name = {feature.spec.name: feature.columns for feature in features}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        message = f"{where} names {', '.join(unknown)}, which are not features; there are: {', '.join(by_name)}"
        raise ConfigError(message)
    return [column for name in names for column in by_name[name]]
