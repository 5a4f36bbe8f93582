"""Some rows of a recipe's log as the model would see them: raw values, and what the encoder makes of them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from contract.columns import label_column, weight_column
from contract.schema import FeatureSpec, Schema
from features.encode.encoder import Encoder
from features.encode.fit_encoders import fit, raw_values
from features.encode.fitted_schema import fitted_schema
from features.encode.write_splits import encode_feature
from features.feature_config import FeaturesConfig
from features.incremental.log_rows import log_rows
from features.incremental.partition_store import PartitionStore
from features.incremental.raw_dataset import RawDataset
from features.point_in_time.feature_plan import FeaturePlan

SHOWN_ROWS = 3


@dataclass(frozen=True)
class EncodedValue:
    """A column of some rows: what it holds, and the model's input; a label has no other."""

    name: str
    raw: tuple[Any, ...]
    encoded: tuple[Any, ...]


@dataclass(frozen=True)
class EncodedSample:
    """The columns of some rows, and the plan and the spec of each feature, fitted on the sample alone."""

    values: tuple[EncodedValue, ...]
    planned: tuple[FeaturePlan, ...]
    schema: Schema


def encode_sample(config: FeaturesConfig, folder: Path, unsigned: Collection[str] = ()) -> EncodedSample:
    """Build the raw rows of a small log in a folder, fit the encoders on them, and encode the first ones.

    `unsigned` are keys that are kept as signed numbers with the same bits; they are shown as they lie.

    Raises:
        DataError: sources that cannot be used, or values that cannot be fitted.
        ConfigError: a recipe that does not fit them.
    """
    raw_folder = folder / "raw"
    raw_folder.mkdir()
    with log_rows(config, PartitionStore(folder / "days"), raw_folder, lambda _: None, probed=False) as log:
        columns = tuple(dict.fromkeys(column for plan in log.planned for column in plan.raw))
        raw = RawDataset.open(log.connection, log.work, config, log.timeline.last_ms, columns)
    fitted = fit(raw, log.planned, config)
    schema = fitted_schema(config, fitted, log.timeline, raw.schema)
    encoder = Encoder(schema, fitted.vocabularies)
    tasks = [name(task.name) for task in config.tasks for name in (label_column, weight_column)]
    rows = raw.read(list(dict.fromkeys([*columns, *tasks]))).slice(0, SHOWN_ROWS).combine_chunks()
    values = [
        _encoded(plan, spec, raw_values(rows, plan, fitted.priors), encoder, unsigned)
        for plan, spec in zip(log.planned, schema.features, strict=True)
    ]
    values += [EncodedValue(name, tuple(rows[name].to_pylist()), ()) for name in tasks]
    return EncodedSample(tuple(values), tuple(log.planned), schema)


def _encoded(
    plan: FeaturePlan, spec: FeatureSpec, values: pa.Array, encoder: Encoder, unsigned: Collection[str]
) -> EncodedValue:
    # A cross has no value of its own but the hash of its keys.
    raw = tuple(values.to_pylist()) if plan.cross is None else (f"{' x '.join(plan.raw)}",) * len(values)
    column = plan.column.name if plan.column is not None else None if plan.history is None else plan.history.of
    shown = tuple(map(_as_unsigned, raw)) if column in unsigned else raw
    return EncodedValue(spec.name, shown, tuple(encode_feature(encoder, spec, values).to_pylist()))


def _as_unsigned(value: Any) -> Any:
    """A whole number of 64 bits without a sign, alone or in a list."""
    if isinstance(value, list):
        return [_as_unsigned(one) for one in value]
    return value + 2**64 if isinstance(value, int) and value < 0 else value
