"""How far the features and predictions of new rows are from those of a model's own rows.

Both sides are encoded by the model's own vocabularies and bins, so what differs is the data. Shape legend: N rows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from contract.columns import label_column, weight_column
from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.files import write_text
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from contract.settings import Settings, renamed
from features.batches import BatchReader
from features.quality.shift_measures import chance_of_psi, jensen_shannon, kolmogorov_smirnov, psi
from pipeline.evaluation.predictions import BATCH_ROWS
from pipeline.evaluation.raw_values import raw_numbers, raw_texts
from serving.graph.engine import Engine

DRIFT_FILE = "drift.json"
THRESHOLD = 0.2
MOST_ROWS, MOST_SCORED = 200_000, 50_000
"""Rows of each side that are looked at, and that are scored; in the order of reading they are of all days."""
_BINS, _VALUES = 10, 20
_EMPTY = -1
_CHANCE = 0.001
"""How unlikely by chance a PSI must be, beside being beyond the threshold, before it is an alarm."""


class Shift(Settings):
    """A share or a mean, before and now."""

    before: float
    now: float


class DriftOf(Settings):
    """One feature, prediction or label: shares of its `bins` on both sides, and how far they are apart.

    `unknown` are ids that the vocabulary does not have, among those that are given; `missing` nulls or empty lists.
    """

    name: str
    kind: Literal["dense", "id", "id_list", "prediction", "label"]
    psi: float
    chance: float
    js: float
    ks: float | None = None
    unknown: Shift | None = None
    missing: Shift | None = None
    mean: Shift | None = None
    bins: tuple[str, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]


class Drift(Settings):
    """``drift.json``: every feature, label and prediction that was compared, and what is beyond the threshold."""

    data: str
    reference: str
    rows: int
    reference_rows: int
    threshold: float
    columns: tuple[DriftOf, ...]

    @model_validator(mode="before")
    @classmethod
    def _names_of_old(cls, data: Any) -> Any:
        return renamed(data, {"found": "columns"})

    @property
    def by_psi(self) -> list[DriftOf]:
        """What drifted most first."""
        return sorted(self.columns, key=lambda each: -each.psi)

    @property
    def alarms(self) -> list[DriftOf]:
        """What is beyond the threshold, and not by chance."""
        return [each for each in self.by_psi if each.psi > self.threshold and each.chance < _CHANCE]

    def save(self, directory: Path) -> None:
        """Write ``drift.json``."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / DRIFT_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where drift was not asked for.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / DRIFT_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"{directory / DRIFT_FILE} cannot be read: {error}; make it again with `moerank drift`"
            raise DataError(message) from error


@dataclass(frozen=True)
class Side:
    """Encoded rows and what they are called."""

    data: Path
    name: str


def measure_drift(
    bundle: Path, reference: Side, new: Side, threshold: float = THRESHOLD, say: Callable[[str], None] | None = None
) -> Drift:
    """Compare new rows with rows of the model's own build, feature by feature, and what the graph says of both.

    Raises:
        DataError: a side has no rows.
        SchemaMismatchError: a side was encoded for another model.
        PredictionError: the graph fails.
    """
    say = say or (lambda _: None)
    engine = Engine(bundle)
    schema = engine.schema
    sides = [_SampledRows.of(side.data, schema) for side in (reference, new)]
    drifts = []
    say("comparing features")
    for spec in schema.features:
        before, now = (rows.column(spec.name) for rows in sides)
        drifts.append(_of_feature(spec, before, now, bundle))
    for task in schema.tasks:
        before, now = (rows.labels(task.name) for rows in sides)
        if before.size and now.size:
            drifts.append(_of_numbers(f"label of {task.name}", "label", before, now))
    say("scoring both")
    first, second = (_score(engine, side.data, schema) for side in (reference, new))
    drifts += [
        _of_numbers(f"prediction of {task.name}", "prediction", first[task.name], second[task.name])
        for task in schema.tasks
    ]
    return Drift(
        data=new.name,
        reference=reference.name,
        rows=sides[1].rows,
        reference_rows=sides[0].rows,
        threshold=threshold,
        columns=tuple(drifts),
    )


@dataclass(frozen=True)
class _SampledRows:
    """The first rows of a dataset, in the order of reading."""

    dataset: EncodedDataset
    groups: int
    rows: int

    @classmethod
    def of(cls, data: Path, schema: Schema) -> Self:
        """As many row groups as have `MOST_ROWS`."""
        dataset = EncodedDataset.open(data)
        dataset.require(schema)
        groups, rows = 0, 0
        for group in dataset.row_groups:
            groups, rows = groups + 1, rows + group.rows
            if rows >= MOST_ROWS:
                break
        if rows == 0:
            message = f"{data} has no rows to compare; at least one is needed"
            raise DataError(message)
        return cls(dataset, groups, rows)

    def column(self, name: str) -> pa.Array:
        """A column's values."""
        return self.dataset.read_groups(self.dataset.row_groups[: self.groups], [name])[name].combine_chunks()

    def labels(self, task: str) -> NDArray[np.float64]:
        """The labels of the rows to which a task applies."""
        applies = self.column(weight_column(task)).to_numpy() > 0
        return np.asarray(self.column(label_column(task)).to_numpy()[applies], dtype=np.float64)


def _score(engine: Engine, data: Path, schema: Schema) -> Mapping[str, NDArray[np.float64]]:
    parts: list[Mapping[str, NDArray[np.float32]]] = []
    rows = 0
    for batch in BatchReader(data, schema, BATCH_ROWS).epoch():
        parts.append(engine.predict(batch.inputs))
        rows += batch.rows
        if rows >= MOST_SCORED:
            break
    return {task.name: np.concatenate([part[task.name] for part in parts]).astype(np.float64) for task in schema.tasks}


def _of_feature(spec: FeatureSpec, before: pa.Array, now: pa.Array, bundle: Path) -> DriftOf:
    if isinstance(spec, DenseSpec):
        sides = [raw_numbers(spec, side.to_numpy()) for side in (before, now)]
        missing = Shift(before=float(sides[0][1].mean()), now=float(sides[1][1].mean()))
        first, second = (numbers[~gaps] for numbers, gaps in sides)
        drift = _of_numbers(spec.name, "dense", first, second, missing)
        return drift if spec.encoding == "piecewise_linear" else drift.model_copy(update={"missing": None})
    return _of_ids(spec, before, now, raw_texts(spec, bundle))


def _of_numbers(
    name: str,
    kind: Literal["dense", "prediction", "label"],
    before: NDArray[np.float64],
    now: NDArray[np.float64],
    missing: Shift | None = None,
) -> DriftOf:
    """Deciles of the values before, and where nulls can be told, their share as a bin of its own."""
    cuts = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1])) if before.size else np.empty(0)
    if np.unique(before).size <= _BINS:
        cuts = np.unique(before)[:-1]
    names = _names_of(cuts)
    shares = []
    for values, gaps in ((before, missing.before if missing else 0.0), (now, missing.now if missing else 0.0)):
        counts = np.bincount(np.searchsorted(cuts, values, side="left"), minlength=cuts.size + 1)
        inside = counts / max(values.size, 1) * (1.0 - gaps)
        shares.append((*inside.tolist(), gaps) if missing else tuple(inside.tolist()))
    mean = Shift(before=float(before.mean()), now=float(now.mean())) if before.size and now.size else None
    names = (*names, "missing") if missing else names
    drift = _drift_of(name, kind, names, shares, (before.size, now.size))
    return drift.model_copy(update={"ks": kolmogorov_smirnov(before, now), "mean": mean, "missing": missing})


def _names_of(cuts: NDArray[np.float64]) -> tuple[str, ...]:
    if cuts.size == 0:
        return ("all",)
    return (f"<= {cuts[0]:.4g}", *(f"to {cut:.4g}" for cut in cuts[1:]), f"> {cuts[-1]:.4g}")


def _of_ids(spec: IdSpec, before: pa.Array, now: pa.Array, texts: Mapping[int, str]) -> DriftOf:
    """The most frequent ids before, all others together, and unknown ones."""
    empty = None
    if spec.kind == "id_list":
        empty = Shift(before=_empty_share(before), now=_empty_share(now))
    rows = [_ids_of(side) for side in (before, now)]
    first = 1 + spec.null_row + spec.unknown_rows
    is_null = [(side == _EMPTY) | ((side == 1) & spec.null_row) for side in rows]
    unknown = [(side < first) & ~nulls for side, nulls in zip(rows, is_null, strict=True)]
    ids, counts = np.unique(rows[0][rows[0] >= first], return_counts=True)
    frequent = ids[np.argsort(-counts, kind="stable")][:_VALUES]
    bins = (*(texts.get(int(value), f"row {value}") for value in frequent), "others", "unknown", "missing")
    shares = [tuple(_id_shares(*each, frequent)) for each in zip(rows, unknown, is_null, strict=True)]
    drift = _drift_of(spec.name, spec.kind, bins, shares, (rows[0].size, rows[1].size))
    nulls = Shift(before=_mean(is_null[0]), now=_mean(is_null[1])) if spec.null_row else None
    unknown_share = Shift(before=_mean(unknown[0]), now=_mean(unknown[1]))
    return drift.model_copy(
        update={"unknown": unknown_share if spec.encoding == "vocabulary" else None, "missing": empty or nulls}
    )


def _ids_of(column: pa.Array) -> NDArray[np.int64]:
    """The ids of all rows; of lists all their values, an empty one standing as `_EMPTY`."""
    if not pa.types.is_list(column.type):
        return np.asarray(column.to_numpy(), dtype=np.int64)
    empty = int((np.diff(column.offsets.to_numpy()) == 0).sum())
    return np.concatenate([column.values.to_numpy().astype(np.int64), np.full(empty, _EMPTY)])


def _mean(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _empty_share(rows: pa.Array) -> float:
    return float((np.diff(rows.offsets.to_numpy()) == 0).mean())


def _id_shares(
    rows: NDArray[np.int64], unknown: NDArray[np.bool_], nulls: NDArray[np.bool_], frequent: NDArray[np.int64]
) -> Iterator[float]:
    size = max(rows.size, 1)
    mine = [float((rows == value).sum()) / size for value in frequent]
    gone, missing = float(unknown.sum()) / size, float(nulls.sum()) / size
    yield from (*mine, max(0.0, 1.0 - sum(mine) - gone - missing) if rows.size else 0.0, gone, missing)


def _drift_of(
    name: str,
    kind: Literal["dense", "id", "id_list", "prediction", "label"],
    bins: tuple[str, ...],
    shares: list[tuple[float, ...]],
    rows: tuple[int, int],
) -> DriftOf:
    apart = psi(*shares) or 0.0
    used = int(np.count_nonzero(np.array(shares).sum(axis=0)))
    return DriftOf(
        name=name,
        kind=kind,
        psi=apart,
        chance=chance_of_psi(apart, used, *rows),
        js=jensen_shannon(*shares),
        bins=bins,
        before=tuple(round(share, 6) for share in shares[0]),
        now=tuple(round(share, 6) for share in shares[1]),
    )
