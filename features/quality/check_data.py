"""Look at what was built before it trains: nulls, ranges, duplicates, late rows, label rates by day, drift, leaks.

``quality.json`` keeps the numbers, with each feature's distribution for the next build to be compared with, and
``quality.html`` shows them.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import DataError
from contract.schema import DenseSpec, FeatureSpec, Schema
from features.encode.encoder import as_float64
from features.encode.fit_encoders import Fitted, quantile_edges, raw_values
from features.encode.write_splits import EncodedSplits
from features.feature_config import FeaturesConfig
from features.incremental.raw_dataset import RawDataset
from features.incremental.splits import SPLIT_NAMES
from features.point_in_time.feature_plan import FeaturePlan
from features.quality.histograms import histogram
from features.quality.leakage import LeakFinding, find_leaks
from features.quality.quality_report import Distribution, FeatureProfile, QualityReport
from features.quality.row_counts import count_rows, label_rates, older_than
from features.quality.shift_measures import psi

QUALITY_FILE = "quality.json"
_BINS, _VALUES = 10, 30


def check_quality(
    raw_dataset: RawDataset, encoded: list[EncodedSplits], directory: Path, feature_plans: list[FeaturePlan],
    schema: Schema, fitted: Fitted, config: FeaturesConfig, previous: Path,
) -> QualityReport:  # fmt: skip
    """Profile raw rows and encoded ones, of which `directory` has the files; `previous` is where the last build lies.

    Raises:
        DataError: a range, a null rate, a drift or a leak that the recipe refuses.
    """
    before = load_report(previous)
    profiles = {}
    for plan, spec in zip(feature_plans, schema.features, strict=True):
        last = before.features.get(plan.name) if before else None
        profiles[plan.name] = _profile(raw_values(raw_dataset.sample, plan, fitted.priors), spec, last)
    tasks = [task.name for task in schema.tasks]
    counts_by_partition = [count_rows(part.files, part.counts, tasks) for part in encoded]
    known = zip(encoded, counts_by_partition, strict=True)
    older = sum(older_than(part.files, counts, before.cutoff_ms) for part, counts in known) if before else 0
    earlier = {plan.name for plan in feature_plans if plan.aggregate is not None or plan.history is not None}
    leaks = find_leaks(directory, schema, config.checks, earlier)
    report = QualityReport(
        rows=sum(counts.rows for counts in counts_by_partition),
        duplicates=sum(counts.repeats for counts in counts_by_partition),
        late=max(0, older - before.rows) if before else 0,
        cutoff_ms=0,
        features=profiles,
        label_rates={task: label_rates(counts_by_partition, task) for task in tasks},
        leaks=tuple(_as_dict(finding) for finding in leaks),
        unlearned=fitted.unlearned,
    )
    _enforce(report, raw_dataset, feature_plans, fitted, config)
    return report


def load_report(directory: Path) -> QualityReport | None:
    """The report of the build in a directory; None without one that this version can read."""
    try:
        return QualityReport.model_validate_json((directory / QUALITY_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _as_dict(finding: LeakFinding) -> dict[str, str | float]:
    return {"feature": finding.feature, "task": finding.task, "measure": finding.measure, "value": finding.value}


def _profile(values: pa.Array, spec: FeatureSpec, last: FeatureProfile | None) -> FeatureProfile:
    nulls = values.null_count / max(len(values), 1)
    if isinstance(spec, DenseSpec):
        floats = as_float64(values, spec.name)
        # In order, so that bins are counted by looking edges up among values, and not values among edges.
        known = np.sort(floats[~np.isnan(floats)])
        edges = quantile_edges(known, _BINS) if len(known) else ()
        return FeatureProfile(
            kind="dense",
            null_rate=round(1 - len(known) / max(len(floats), 1), 6),
            low=float(known.min()) if len(known) else None,
            high=float(known.max()) if len(known) else None,
            bins=spec.bins if spec.encoding == "piecewise_linear" else None,
            distribution=Distribution(edges=edges, shares=_bin_shares(known, edges, len(floats))),
            histogram=histogram(known),
            psi=None
            if last is None
            else psi(last.distribution.shares, _bin_shares(known, last.distribution.edges, len(floats))),
        )
    flat = values.flatten() if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) else values
    counts = pa.table({"value": flat.drop_null()}).group_by("value").aggregate([("value", "count")])
    top = _most_frequent(counts)
    texts = tuple(top["value"].cast(pa.string()).to_pylist())
    return FeatureProfile(
        kind=spec.kind,
        null_rate=round(nulls, 6),
        distinct=len(counts),
        distribution=Distribution(values=texts, shares=_value_shares(counts, texts, len(flat))),
        psi=psi(last.distribution.shares, _value_shares(counts, last.distribution.values, len(flat))) if last else None,
    )


def _most_frequent(counts: pa.Table) -> pa.Table:
    """The most frequent values, equals in the order of their value."""
    # Most values are rare: a partial sort finds how frequent the last one is, and only these are put in order.
    least = -np.partition(-counts["value_count"].to_numpy(), _VALUES)[_VALUES] if len(counts) > _VALUES else 0
    frequent = counts.filter(pc.greater_equal(counts["value_count"], int(least)))
    return frequent.sort_by([("value_count", "descending"), ("value", "ascending")]).slice(0, _VALUES)


def _bin_shares(known: NDArray[np.float64], edges: tuple[float, ...], total: int) -> tuple[float, ...]:
    """The share of each bin among ascending values, the open ends included, and of null as the last."""
    counts = np.diff(np.searchsorted(known, np.array(edges)), prepend=0, append=len(known))
    shares = np.append(counts, total - len(known)) / max(total, 1)
    return tuple(round(float(share), 6) for share in shares)


def _value_shares(counts: pa.Table, values: tuple[str, ...], total: int) -> tuple[float, ...]:
    """The share of each value, and of all others, null included, as the last."""
    texts = pa.array(values, pa.string())
    few = _only(counts, texts)
    row_of_value = pc.index_in(texts, value_set=few["value"].cast(pa.string()).combine_chunks())
    numbers = pc.fill_null(few["value_count"].take(row_of_value), 0).to_numpy() / max(total, 1)
    return tuple(round(float(share), 6) for share in [*numbers, max(0.0, 1.0 - float(numbers.sum()))])


def _only(counts: pa.Table, texts: pa.Array) -> pa.Table:
    """The counts of values whose texts are asked for, and perhaps of others: to make all of them texts is slow."""
    kind = counts["value"].type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        return counts
    try:
        return counts.filter(pc.is_in(counts["value"], value_set=texts.cast(kind)))
    except pa.ArrowInvalid:
        # The values were of another type in the last build.
        return counts


def _enforce(
    report: QualityReport,
    raw_dataset: RawDataset,
    feature_plans: list[FeaturePlan],
    fitted: Fitted,
    config: FeaturesConfig,
) -> None:
    checks = config.checks
    for name, profile in report.features.items():
        if checks.max_null_rate is not None and profile.null_rate > checks.max_null_rate:
            message = (
                f"feature {name!r} is null in {profile.null_rate:.1%} of rows; allowed are {checks.max_null_rate:.1%}"
            )
            raise DataError(message)
        if checks.max_psi is not None and profile.psi is not None and profile.psi > checks.max_psi:
            message = (
                f"feature {name!r} drifted since the last build: PSI {profile.psi:.3f}, allowed is {checks.max_psi:g}; "
                "look at quality.html of that build, correct the source, or raise data.checks.max_psi"
            )
            raise DataError(message)
    plans = {plan.name: plan for plan in feature_plans}
    for name, (low, high) in checks.ranges.items():
        if name not in plans:
            message = f"data.checks.ranges names {name!r}, which is not a feature; there are {', '.join(plans)}"
            raise DataError(message)
        for number, split in enumerate(SPLIT_NAMES):
            table = raw_dataset.read(list(plans[name].raw), number)
            extremes = pc.min_max(pa.array(as_float64(raw_values(table, plans[name], fitted.priors), name)))
            least, most = extremes["min"].as_py(), extremes["max"].as_py()
            if least is not None and not low <= least <= most <= high:
                message = (
                    f"feature {name!r} lies in [{least:g}, {most:g}] in {split} rows; allowed is [{low:g}, {high:g}]"
                )
                raise DataError(message)


def save_report(report: QualityReport, directory: Path, page: str) -> None:
    """Write both forms of the report."""
    facts = report.model_dump(mode="json")
    (directory / QUALITY_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (directory / "quality.html").write_text(page, encoding="utf-8")
