"""Learn from training rows what encoding needs: vocabularies, quantile edges, means, and the tasks' base rates.

With `previous`, what an earlier build learned is kept: numbers stay, and vocabularies only gain values, in new rows.
"""

import json
import math
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataError
from contract.graph_names import PRIORS_FILE
from contract.hashing import NULL_HASH, combine, hash_array
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Moment, Schema, TaskSpec
from features.encode.encoder import as_float64, refuse_overflow
from features.encode.fit_tasks import fit_tasks
from features.encode.learn_vocabulary import LearnedValues, is_string, learn_vocabulary
from features.encode.vector_column import vector_element
from features.encode.vocabulary import Vocabularies
from features.feature_config import FeatureConfig, FeaturesConfig
from features.incremental.raw_dataset import RawDataset
from features.point_in_time.aggregates import AggregateColumns
from features.point_in_time.elapsed import elapsed
from features.point_in_time.feature_plan import FeaturePlan

LEAST_VALUES = 10_000
"""A dense feature is fitted on a sample of training rows, and on all of them where fewer of it have a value."""
FEWEST_NULLS = 20
"""A null's own component learns from as many rows at least; with fewer, a null counts as the lowest value."""
WORKERS = 2
"""Columns that are read and fitted at a time; sorting and counting let go of the interpreter."""


@dataclass(frozen=True)
class Fitted:
    """Specs in the plan's order, vocabularies, tasks' statistics, means for rates, and why tasks are unlearned."""

    specs: tuple[FeatureSpec, ...]
    vocabularies: Vocabularies
    tasks: tuple[TaskSpec, ...]
    priors: dict[str, float]
    unlearned: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Previous:
    """What an earlier build fitted."""

    schema: Schema
    vocabularies: Vocabularies
    priors: dict[str, float]

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """What the build in a directory fitted; None where there is no finished one."""
        if not (directory / PRIORS_FILE).is_file():
            return None
        schema = Schema.load(directory)
        vocabularies = Vocabularies.load(directory, schema.vocabulary_tables(), schema.vocabulary_sha256)
        return cls(schema, vocabularies, json.loads((directory / PRIORS_FILE).read_text(encoding="utf-8")))

    def dense(self, name: str, encoding: str) -> DenseSpec | None:
        """A dense feature's fitted numbers, if it was there with this encoding."""
        for spec in self.schema.features:
            if spec.name == name and isinstance(spec, DenseSpec) and spec.encoding == encoding:
                return spec
        return None


def fit(
    train: RawDataset, feature_plans: list[FeaturePlan], config: FeaturesConfig, previous: Previous | None = None
) -> Fitted:
    """Fit everything on the raw training rows, or a sample of them, at most `WORKERS` columns in memory at a time.

    Raises:
        DataError: no task to learn, a column of nulls, or a type that a feature cannot take.
    """
    with ThreadPoolExecutor(WORKERS) as workers:
        return _fit(train, feature_plans, config, previous, workers)


def _fit(
    train: RawDataset,
    feature_plans: list[FeaturePlan],
    config: FeaturesConfig,
    previous: Previous | None,
    workers: Executor,
) -> Fitted:
    _check_shares(feature_plans)
    tasks, unlearned = fit_tasks(train, config.tasks, previous.schema.tasks if previous else (), workers)
    means = {a.of for p in feature_plans if (a := p.aggregate) and a.stat == "smoothed"}
    known_means = {**{task.name: task.base_rate for task in tasks}, **(previous.priors if previous else {})}
    priors = {of: known_means[of] if of in known_means else _mean(train, of) for of in sorted(means)}
    named = [p for p in feature_plans if _needs_vocabulary(p)]
    learned = workers.map(lambda plan: learn_vocabulary(train, plan, _known_before(plan, previous)), named)
    learned_values = {plan.name: values for plan, values in zip(named, learned, strict=True)}
    vocabularies = Vocabularies(
        {n: w.values for n, w in learned_values.items()}, {n: w.since for n, w in learned_values.items()}
    )
    dtypes = {p.name: _dtype(train, p.raw[0]) for p in feature_plans if not _is_dense(p)}
    fitted_specs = workers.map(lambda plan: _spec(train, plan, vocabularies, dtypes, priors, previous), feature_plans)
    specs = {plan.name: _with_moment(train, plan, spec) for plan, spec in zip(feature_plans, fitted_specs, strict=True)}
    shared = tuple(_with_shared_policies(spec, specs) for spec in specs.values())
    return Fitted(shared, vocabularies, tasks, priors, unlearned)


def raw_values(raw: pa.Table | pa.RecordBatch, plan: FeaturePlan, priors: dict[str, float]) -> pa.Array:
    """A feature's values from its raw columns: as they are, made of sum and count, or hashed together."""
    if plan.cross is not None:
        hashes = combine([hash_array(_column(raw, name), name) for name in plan.raw])
        return pa.array(hashes, mask=hashes == NULL_HASH)
    first = _column(raw, plan.raw[0])
    if plan.elapsed:
        first = elapsed(first, _column(raw, plan.raw[1]).to_numpy())
    if plan.element is not None and plan.column is not None:
        return vector_element(first, plan.element, plan.column.width or 0, plan.raw[0])
    aggregate = plan.aggregate
    if aggregate is None or not aggregate.total:
        return first
    total = first.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if aggregate.stat == "sum":
        return pa.array(total)
    seen = _column(raw, plan.raw[1]).to_numpy(zero_copy_only=False)
    if aggregate.stat == "mean":
        return pa.array(total / np.maximum(seen, 1), mask=seen == 0)
    return pa.array(smooth(total, seen, aggregate, priors))


def smooth(
    total: NDArray[np.float64], seen: NDArray[np.int64], aggregate: AggregateColumns, priors: dict[str, float]
) -> NDArray[np.float64]:
    """(sum + prior * mean) / (n + prior): the mean of few events is drawn to the mean over training rows."""
    return np.asarray((total + aggregate.prior * priors[aggregate.of]) / (seen + aggregate.prior), dtype=np.float64)


def _column(raw: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    column = raw.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _read(train: RawDataset, name: str) -> pa.Array:
    return _column(train.read([name]), name)


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values other than NaN in ascending order, so that sums do not depend on the order of rows."""
    return np.sort(values[~np.isnan(values)])


def _is_dense(plan: FeaturePlan) -> bool:
    return plan.aggregate is not None or (plan.column is not None and plan.column.kind == "dense")


def _known_before(plan: FeaturePlan, previous: Previous | None) -> LearnedValues | None:
    """The vocabulary that a feature's is to grow from."""
    if previous is None or plan.name not in previous.schema.vocabulary_tables():
        return None
    return LearnedValues(previous.vocabularies.values(plan.name), previous.vocabularies.since(plan.name))


def _needs_vocabulary(plan: FeaturePlan) -> bool:
    if plan.history is not None:
        return plan.history.shares is None
    return plan.column is not None and plan.column.kind != "dense" and plan.column.encoding != "hash"


def _dtype(train: RawDataset, column: str) -> Literal["integer", "string"]:
    kind = train.schema.field(column).type
    kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return "string" if is_string(kind) else "integer"


def _spec(
    train: RawDataset,
    plan: FeaturePlan,
    vocabularies: Vocabularies,
    dtypes: dict[str, Literal["integer", "string"]],
    priors: dict[str, float],
    previous: Previous | None,
) -> FeatureSpec:
    if plan.cross is not None:
        return IdSpec(
            name=plan.name, kind="id", side="pair", keys=plan.keys, rows=plan.cross.buckets + 1,
            encoding="hash", cross=True,
        )  # fmt: skip
    if plan.history is not None:
        table = plan.history.shares or plan.name
        return IdSpec(
            name=plan.name, kind="id_list", side=plan.side, keys=plan.keys, rows=vocabularies.size(table),
            table=table, dtype=dtypes[plan.name], pooling=plan.history.pooling, max_length=plan.history.last,
        )  # fmt: skip
    if plan.column is not None and plan.column.kind != "dense":
        return _id_spec(plan, plan.column, vocabularies, dtypes[plan.name])
    return _dense_spec(train, plan, priors, previous)


def _id_spec(
    plan: FeaturePlan, column: FeatureConfig, vocabularies: Vocabularies, dtype: Literal["integer", "string"]
) -> IdSpec:
    hashed = column.encoding == "hash"
    return IdSpec(
        name=plan.name,
        kind="id_list" if column.kind == "id_list" else "id",
        side=plan.side,
        rows=column.buckets + 1 if hashed else vocabularies.size(plan.name),
        encoding="hash" if hashed else "vocabulary",
        dtype=dtype,
        pooling=column.pooling,
        max_length=column.max_length if column.kind == "id_list" else 0,
        null_row=column.nulls == "own",
        unknown_rows=column.unknown_rows,
        refuse_null=column.nulls == "refuse",
    )


def _with_moment(train: RawDataset, plan: FeaturePlan, spec: FeatureSpec) -> FeatureSpec:
    """Say where a column holds dates or times, so that a request may give them as text."""
    if plan.column is None:
        return spec
    moment = moment_of(train.schema.field(plan.raw[0]).type)
    return spec.model_copy(update={"moment": moment}) if moment else spec


def moment_of(kind: pa.DataType) -> Moment:
    """What sort of moment a column of this type holds; empty if none, or lists."""
    if pa.types.is_date(kind):
        return "date"
    return "time" if pa.types.is_timestamp(kind) else ""


def _with_shared_policies(spec: FeatureSpec, specs: dict[str, FeatureSpec]) -> FeatureSpec:
    """A list that uses another feature's table follows that feature in what its reserved rows mean."""
    owner = specs[spec.table_name] if isinstance(spec, IdSpec) and spec.table_name != spec.name else None
    if not isinstance(owner, IdSpec):
        return spec
    return spec.model_copy(update={"null_row": owner.null_row, "unknown_rows": owner.unknown_rows})


def _check_shares(feature_plans: list[FeaturePlan]) -> None:
    """Refuse lists that share with what has no vocabulary.

    Raises:
        DataError: naming the list and what it names.
    """
    owners = {p.name for p in feature_plans if p.history is None and _needs_vocabulary(p)}
    for plan in feature_plans:
        shares = plan.history.shares if plan.history else None
        if shares and shares not in owners:
            allowed = ", ".join(sorted(owners)) or "none"
            message = (
                f"history {plan.name!r} shares {shares!r}, which is not an id feature with a vocabulary; `shares` "
                f"names the feature whose embedding the list uses: {allowed}"
            )
            raise DataError(message)


def _dense_spec(train: RawDataset, plan: FeaturePlan, priors: dict[str, float], previous: Previous | None) -> DenseSpec:
    column = plan.column
    encoding = (column.encoding if column else None) or "piecewise_linear"
    earlier_spec = previous.dense(plan.name, encoding) if previous else None
    fitted = earlier_spec or _finite(_fit_dense(train, plan, priors))
    if column is None:
        return fitted
    policies: dict[str, object] = {"null_bin": False} if column.fill is not None else {}
    if plan.element is not None:
        policies |= {"vector": column.name, "half": True}
    policies |= {"fill": column.fill, "refuse_null": column.nulls == "refuse", "refuse_nan": column.nans == "refuse"}
    return fitted.model_copy(update=policies)


def _fit_dense(train: RawDataset, plan: FeaturePlan, priors: dict[str, float]) -> DenseSpec:
    values, nulls = _dense_values(train.sample, plan, priors)
    if len(values) < LEAST_VALUES:
        values, nulls = _dense_values(train.read(list(plan.raw)), plan, priors)
    if not len(values):
        message = f"feature {plan.name!r} is null in every training row; remove it or fill the column"
        raise DataError(message)
    encoding = (plan.column.encoding if plan.column else None) or "piecewise_linear"
    if encoding == "piecewise_linear":
        derived = plan.column or plan.aggregate
        edges = quantile_edges(values, derived.bins if derived else 24)
        return DenseSpec(
            name=plan.name, side=plan.side, keys=plan.keys, encoding="piecewise_linear", edges=edges,
            null_bin=nulls >= FEWEST_NULLS and len(edges) > 1,
        )  # fmt: skip
    shifted = np.log1p(np.maximum(values, 0.0)) if encoding == "log1p" else values
    refuse_overflow(plan.name, values, shifted)
    return DenseSpec(
        name=plan.name, side=plan.side, keys=plan.keys,
        encoding="log1p" if encoding == "log1p" else "standardise",
        mean=float(shifted.mean()), scale=float(shifted.std()) or 1.0, default=float(np.median(values)),
        lowest=float(values[0]), highest=float(values[-1]),
    )  # fmt: skip


def _dense_values(raw: pa.Table, plan: FeaturePlan, priors: dict[str, float]) -> tuple[NDArray[np.float64], int]:
    """The values that there are, in ascending order, and how many rows have none."""
    values = as_float64(raw_values(raw, plan, priors), plan.name)
    known = _known(values)
    return known, len(values) - len(known)


def _finite(spec: DenseSpec) -> DenseSpec:
    """A spec all of whose fitted numbers are finite.

    Raises:
        DataError: one that is not, as a mean of the largest floats, which often mark what is missing.
    """
    if not all(map(math.isfinite, (*spec.edges, spec.mean, spec.scale, spec.default or 0.0))):
        message = (
            f"feature {spec.name!r} has values too large to fit (mean {spec.mean:g}, scale {spec.scale:g}); "
            "if one of them marks what is missing, such as 1.8e308, write null in its place: "
            f"`columns: {{{spec.name}: if({spec.name} > 1e300, null, {spec.name})}}`"
        )
        raise DataError(message)
    return spec


def quantile_edges(values: NDArray[np.float64], bins: int) -> tuple[float, ...]:
    """Distinct ascending edges of at most `bins` bins over `values`, which hold no NaN.

    A value that fills a whole bin gets an edge of its own, and the bins that are left are spread over the other
    values: plain quantiles of a column with 92 % zeros would fall on zero again and again, and leave two bins.

    >>> quantile_edges(np.array([0.0] * 90 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]), 4)
    (0.0, 1.0, 4.0, 7.0, 10.0)
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= bins + 1:
        return tuple(distinct.tolist())
    heavy = np.zeros(len(distinct), dtype=bool)
    left = bins
    while (too_heavy := ~heavy & (counts * left >= counts[~heavy].sum())).any():
        heavy |= too_heavy
        left = bins - int(heavy.sum())
    rest = np.repeat(distinct[~heavy], counts[~heavy])
    spread = np.quantile(rest, np.linspace(0, 1, left + 1)) if len(rest) else rest
    return tuple(np.unique(np.concatenate([distinct[heavy], spread])).tolist())


def _mean(train: RawDataset, column: str) -> float:
    values = _known(as_float64(_read(train, column), column))
    return float(values.mean()) if len(values) else 0.0
