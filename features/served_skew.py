"""Served features beside those that a build computes for the same events: where they differ, how much, and examples.

Both are compared as the version that served encodes them. What differs was not known yet when the tables were built,
was pushed or overridden by the request, or is computed in two ways.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import SERVED_ROW
from contract.errors import ConfigError, DataError
from contract.schema import DenseSpec, FeatureSpec, Schema
from features.encode.fit_encoders import raw_values
from features.encode.write_splits import encode_feature
from features.feature_config import FeaturesConfig
from features.incremental.log_rows import log_rows
from features.incremental.partition_store import PartitionStore
from features.incremental.raw_rows import PartitionRows, history_names
from features.point_in_time.feature_plan import FeaturePlan
from features.served.decode_features import decode_feature, decode_numbers
from features.served.log_format import REQUEST_ID, ServedEncoding, feature_column
from features.served.served_events import with_served_rows
from features.served.served_features import ServedFeatures

EXAMPLES = 3
Progress = Callable[[str], None]


@dataclass
class FeatureSkew:
    """One feature: `unequal` of `rows` rows differ; `largest` is the largest difference of numbers, decoded."""

    name: str
    rows: int = 0
    unequal: int = 0
    largest: float = 0.0
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of rows that differ."""
        return self.unequal / max(self.rows, 1)

    def lines(self) -> list[str]:
        """For a person: the figures, and where to look."""
        largest = f", by up to {self.largest:g}" if self.largest else ""
        head = f"{self.name:<32} {self.share:>8.3%} of {self.rows:,} rows differ{largest}"
        shown = [
            f"    request {e['request']}, item {e['item']}: served {e['served']}, computed {e['computed']}"
            for e in self.examples
        ]
        return [head, *shown]


@dataclass
class SkewReport:
    """All features, the most different first; `left_out` says which were not compared, and why."""

    rows: int
    features: tuple[FeatureSkew, ...]
    left_out: dict[str, str]

    def over(self, most: float) -> list[str]:
        """The features that differ in more than the share `most` of the rows."""
        return [feature.name for feature in self.features if feature.share > most]

    def lines(self) -> list[str]:
        """For a person."""
        compared = [line for feature in self.features for line in feature.lines()]
        missing = [f"{name:<32} not compared: {why}" for name, why in sorted(self.left_out.items())]
        return [f"{self.rows:,} served candidates", *compared, *missing]


def compare_served(config: FeaturesConfig, kept: Path, progress: Progress) -> SkewReport:
    """Compare every served candidate of the recipe's log; raw rows of its days stay in `kept` for the next time.

    Raises:
        ConfigError: the recipe names no log of served requests.
        DataError: sources that cannot be used, or no event that was served.
    """
    if config.events.served is None:
        message = "data.events.served names no log; set it to what `moerank serve --log DIR` writes"
        raise ConfigError(message)
    store = PartitionStore(kept)
    config = with_served_rows(config, kept / "served")
    served = ServedFeatures(Path(str(config.events.served)))
    with tempfile.TemporaryDirectory(prefix="moerank-skew-") as scratch:
        with log_rows(config, store, Path(scratch), progress) as log:
            plans = {plan.name: plan for plan in log.planned}
            parts = [PartitionRows(file, history_names(config)) for file in log.work.files]
        store.save_last(log.work.log)
        progress("comparing")
        return _compare(parts, plans, served, str(config.events.item))


def _compare(
    parts: Sequence[PartitionRows], plans: dict[str, FeaturePlan], served: ServedFeatures, item: str
) -> SkewReport:
    skews: dict[str, FeatureSkew] = {}
    left_out: dict[str, str] = {}
    rows = 0
    for raw, table, encoding in _served_rows(parts, plans, served):
        rows += len(raw)
        for spec in encoding.schema.features:
            why = _incomparable(spec, plans, encoding)
            if why:
                left_out[spec.name] = why
                continue
            values = raw_values(raw, plans[spec.name], encoding.priors)
            computed = encode_feature(encoding.encoder, spec, values)
            logged = table[feature_column(spec.name)].combine_chunks()
            skew = skews.setdefault(spec.name, FeatureSkew(spec.name))
            _add(skew, spec, encoding, logged, computed, table.select([REQUEST_ID, item]))
        left_out |= dict.fromkeys(plans.keys() - _names(encoding.schema), "a version in the log was not served it")
    if not rows:
        message = "no event of the recipe's log is among the served requests; look at data.events.served_within"
        raise DataError(message)
    return SkewReport(rows, tuple(sorted(skews.values(), key=lambda each: (-each.share, each.name))), left_out)


def _names(schema: Schema) -> set[str]:
    return {spec.name for spec in schema.features}


def _incomparable(spec: FeatureSpec, plans: dict[str, FeaturePlan], encoding: ServedEncoding) -> str:
    plan = plans.get(spec.name)
    if plan is None:
        return "the recipe does not have it"
    aggregate = plan.aggregate
    if aggregate is not None and aggregate.stat == "smoothed" and aggregate.of not in encoding.priors:
        return "the version that served it keeps no means to smooth by; export it again"
    return ""


def _served_rows(
    parts: Sequence[PartitionRows], plans: dict[str, FeaturePlan], served: ServedFeatures
) -> Iterator[tuple[pa.Table, pa.Table, ServedEncoding]]:
    """Raw rows that were served, their rows in the log, and what encoded these."""
    names = list(dict.fromkeys([*(column for plan in plans.values() for column in plan.raw), SERVED_ROW]))
    for part in parts:
        for group in range(part.metadata.num_row_groups):
            raw = part.read(names, [group])
            raw = raw.filter(raw[SERVED_ROW].is_valid())
            for places, table, encoding in served.read(raw[SERVED_ROW].to_numpy()):
                yield raw.take(pa.array(places)), table, encoding


def _add(
    skew: FeatureSkew, spec: FeatureSpec, encoding: ServedEncoding, logged: pa.Array, computed: pa.Array, keys: pa.Table
) -> None:
    differ = _differences(logged, computed)
    skew.rows += len(logged)
    skew.unequal += int(np.count_nonzero(differ))
    if not differ.any():
        return
    rows = np.flatnonzero(differ)
    both = [_decoded(spec, encoding, each.take(pa.array(rows))) for each in (logged, computed)]
    if isinstance(spec, DenseSpec):
        gaps = np.abs(both[0].to_numpy(zero_copy_only=False) - both[1].to_numpy(zero_copy_only=False))
        skew.largest = float(np.fmax.reduce(gaps, initial=skew.largest))
    few = slice(0, EXAMPLES - len(skew.examples))
    at = keys.take(pa.array(rows[few])).to_pylist()
    shown = [each.slice(0, len(at)).to_pylist() for each in both]
    item = keys.column_names[1]
    skew.examples += [
        {"request": key[REQUEST_ID], "item": key[item], "served": ours, "computed": theirs}
        for key, ours, theirs in zip(at, *shown, strict=True)
    ]


def _decoded(spec: FeatureSpec, encoding: ServedEncoding, encoded: pa.Array) -> pa.Array:
    """Values to show: those of ids and numbers, rows of the table where only a hash is known."""
    if isinstance(spec, DenseSpec):
        return pa.array(decode_numbers(spec, encoded.to_numpy()), from_pandas=True)
    return encoded if spec.encoding == "hash" else decode_feature(encoding.encoder, spec, encoded)


def _differences(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Which rows [n] of two encoded columns are not the same."""
    if not pa.types.is_list(one.type):
        return np.asarray(one.to_numpy() != other.to_numpy(), dtype=np.bool_)
    pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
    return np.array([(ours or []) != (theirs or []) for ours, theirs in pairs], dtype=np.bool_)
