"""What each feature of a recipe costs: columns that are read, joins, bytes in embedding and online tables."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.schema import DenseSpec, IdSpec, Schema
from features.point_in_time.feature_plan import FeaturePlan

_SETTINGS = Path(__file__).with_name("moerank.schema.json")
_FLOAT = 4
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


@dataclass(frozen=True)
class FeatureCost:
    """A feature, how it is made, and what it takes; `online_bytes` of all its keys together."""

    name: str
    kind: str
    owner: str
    columns: tuple[str, ...]
    join: str
    embedding_rows: int
    embedding_bytes: int
    online_bytes: int

    def line(self) -> str:
        """For a person."""
        table = f"{self.embedding_rows:,} rows, {size(self.embedding_bytes)}" if self.embedding_rows else "no table"
        read = f"{len(self.columns)} column{'s' if len(self.columns) != 1 else ''}"
        online = f"online {size(self.online_bytes)}" if self.online_bytes else "sent with requests"
        return f"{self.name:<32} {self.kind:<8} {self.owner:<8} {table}; {online}; {read}; {self.join}"


def default_width() -> int:
    """The numbers of an embedding where the model's block does not say; read from the schema, without the model."""
    schema = json.loads(_SETTINGS.read_text(encoding="utf-8"))
    return int(schema["$defs"]["ModelConfig"]["properties"]["embedding_dim"]["default"])


def feature_costs(
    planned: tuple[FeaturePlan, ...],
    schema: Schema,
    width: int,
    distinct: Mapping[str, int],
    keys: Mapping[str, int],
    joined: Mapping[str, str],
) -> Iterator[FeatureCost]:
    """The cost of each feature: `distinct` values by column and `keys` by side in the whole log.

    `joined` says of columns that other tables have, which.
    """
    for plan, spec in zip(planned, schema.features, strict=True):
        rows, own = _embedding_rows(plan, spec, distinct)
        yield FeatureCost(
            name=plan.name,
            kind=_kind(plan, spec),
            owner=plan.side,
            columns=plan.raw if plan.history is None else (plan.history.of, plan.history.by),
            join=_join(plan, joined),
            embedding_rows=rows if own else 0,
            embedding_bytes=rows * width * _FLOAT if own else 0,
            online_bytes=keys.get(plan.side, 0) * _FLOAT * max(1, getattr(spec, "max_length", 0)),
        )


def _kind(plan: FeaturePlan, spec: IdSpec | DenseSpec) -> str:
    if plan.aggregate is not None:
        return plan.aggregate.stat
    return "history" if plan.history is not None else "cross" if plan.cross is not None else spec.kind


def _embedding_rows(plan: FeaturePlan, spec: IdSpec | DenseSpec, distinct: Mapping[str, int]) -> tuple[int, bool]:
    """The rows of a feature's embedding, and whether it has one of its own."""
    if isinstance(spec, DenseSpec):
        return 0, False
    if spec.encoding == "hash" or plan.elapsed:
        return spec.rows, True
    column = plan.history.of if plan.history is not None else plan.raw[0]
    return max(spec.rows, distinct.get(column, 0) + 1), spec.table in ("", spec.name)


def _join(plan: FeaturePlan, joined: Mapping[str, str]) -> str:
    if plan.aggregate is not None:
        return "1 join with sums"
    if plan.history is not None:
        shares = f", shares the embedding of {plan.history.shares}" if plan.history.shares else ""
        return f"the last {plan.history.last} events{shares}"
    tables = sorted({joined[column] for column in plan.raw if column in joined})
    return f"1 join with {' and '.join(tables)}" if tables else "no join"


def size(count: int) -> str:
    """Bytes in a unit that is read at a glance.

    Example:
        >>> size(96), size(9_600), size(5_000_000_000)
        ('96 B', '9.4 KiB', '4.7 GiB')
    """
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"
