"""Build features: raw Parquet in; encoded training Parquet, schema, vocabularies and online tables out."""

import json
import os
import shutil
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.config import EventsConfig, FeaturesConfig
from features.encoding import Encoder, refuse_by_policy
from features.engine import connect
from features.errors import DataError
from features.fit import PRIORS_FILE, Fitted, Previous, fit, raw_values
from features.kinds import TIME
from features.online import ONLINE_FOLDER
from features.online_build import build_online
from features.parquet import AtomicWriter
from features.plan import Planned, plan_features
from features.quality import check_quality, save_report
from features.quality_page import quality_page
from features.schema import DenseSpec, FeatureSpec, IdSpec, KeySpec, Schema
from features.splits import SPLIT_NAMES
from features.stage import Progress, key_hashes, stage
from features.timeline import Timeline, build_timeline

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that encode row groups; Arrow and NumPy let go of the interpreter for most of it."""


@dataclass(frozen=True)
class FeatureBuild:
    """What a build made: the directory, its schema's fingerprint and the rows of each split."""

    directory: Path
    fingerprint: str
    rows: dict[str, int]
    features: int
    cutoff_ms: int


def build(config: FeaturesConfig, directory: Path, progress: Progress) -> FeatureBuild:
    """Build into `directory`, replacing what an earlier build left there; on failure nothing is changed.

    `progress` is called with a few words as each stage begins.

    Raises:
        DataError: sources that cannot be used.
        ConfigError: a recipe that does not fit them.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        raw, made = Path(scratch) / "raw", Path(scratch) / "made"
        raw.mkdir()
        made.mkdir()
        previous = Previous.load(directory) if config.grow else None
        result = _build(config, raw, made, previous, directory, progress)
        _replace(made, directory)
    return FeatureBuild(directory, result.fingerprint, result.rows, result.features, result.cutoff_ms)


def _build(
    config: FeaturesConfig, raw: Path, made: Path, previous: Previous | None, last: Path, progress: Progress
) -> FeatureBuild:
    progress("reading sources")
    connection = connect(
        config.memory_limit, raw, engine=config.engine, master=config.spark_master, threads=config.threads
    )
    try:
        timeline = build_timeline(connection, config, raw)
        planned = plan_features(config, timeline.ownership)
        rows = stage(connection, timeline, planned, config, raw, progress)
    except duckdb.Error as error:
        message = f"the sources cannot be used: {str(error).splitlines()[0]}; look at the column's type or memory_limit"
        raise DataError(message) from error
    finally:
        connection.disconnect()
    progress("fitting vocabularies and quantiles")
    fitted = fit(raw / "train.parquet", planned, config, previous)
    schema = _schema(config, fitted, timeline, raw)
    encoder = Encoder(schema, fitted.vocabularies)
    progress("encoding")
    for split in SPLIT_NAMES:
        _encode_split(raw / f"{split}.parquet", made / f"{split}.parquet", planned, encoder, fitted, config.events)
    progress("data quality")
    report = check_quality(raw, made, planned, schema, fitted, config, last)
    report = report.model_copy(update={"cutoff_ms": timeline.cutoff_ms})
    save_report(report, made, quality_page(report))
    progress("online tables")
    build_online(raw, made / ONLINE_FOLDER, planned, timeline, encoder, fitted)
    schema.save(made)
    fitted.vocabularies.save(made)
    (made / PRIORS_FILE).write_text(json.dumps(fitted.priors, indent=1) + "\n", encoding="utf-8")
    events = {split: rows[split] for split in SPLIT_NAMES}
    result = FeatureBuild(made, schema.fingerprint(), events, len(schema.features), timeline.cutoff_ms)
    facts = {key: value for key, value in asdict(result).items() if key != "directory"}
    (made / "build.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return result


def _replace(made: Path, directory: Path) -> None:
    """Put the finished build in the place of the old one."""
    old = made.parent / "old"
    if directory.exists():
        directory.rename(old)
    made.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _schema(config: FeaturesConfig, fitted: Fitted, timeline: Timeline, raw: Path) -> Schema:
    stored = pq.read_schema(raw / "train.parquet")
    keys = dict.fromkeys(timeline.keys)
    keys |= dict.fromkeys(key for key in (config.events.user, config.events.item) if key)
    specs = tuple(
        KeySpec(
            name=key,
            side=timeline.ownership.sides[key],
            dtype="string" if pa.types.is_string(stored.field(key).type) else "integer",
        )
        for key in keys
    )
    return Schema(
        features=fitted.specs,
        tasks=fitted.tasks,
        keys=specs,
        user_key=config.events.user or "",
        item_key=config.events.item or "",
        vocabulary_sha256=fitted.vocabularies.sha256(),
    )


def encode_feature(encoder: Encoder, spec: FeatureSpec, values: pa.Array) -> pa.Array:
    """One encoded column: int32, list of int32 or float32."""
    if isinstance(spec, DenseSpec):
        return pa.array(encoder.dense(spec, values))
    if spec.kind == "id":
        return pa.array(encoder.ids(spec, values))
    lists = encoder.lists(spec, values)
    offsets = np.concatenate([[0], np.cumsum(lists.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(lists.values))


def _encode_split(
    source: Path, target: Path, planned: list[Planned], encoder: Encoder, fitted: Fitted, keys: EventsConfig
) -> None:
    """Encode a staged split batch by batch: one column a feature, labels, weights, key hashes and time."""
    tasks = [task.name for task in encoder.schema.tasks]
    schema = pa.schema(
        [pa.field(spec.name, _arrow_type(spec)) for spec in encoder.schema.features]
        + [pa.field(f"{kind}__{task}", pa.float32()) for task in tasks for kind in ("label", "weight")]
        + [pa.field("__user", pa.uint64()), pa.field("__item", pa.uint64()), pa.field("__time", pa.int64())]
    )

    def encode(group: int) -> pa.Table:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            return _encode_rows(file.read_row_group(group), planned, encoder, fitted, keys).cast(schema)

    groups = pq.read_metadata(source).num_row_groups
    with AtomicWriter(target, schema) as writer, ThreadPoolExecutor(WORKERS) as workers:
        # A few ahead of the writer, so that memory holds a few row groups and not the file.
        waiting = deque(workers.submit(encode, group) for group in range(min(groups, 2 * WORKERS)))
        for group in range(groups):
            if group + 2 * WORKERS < groups:
                waiting.append(workers.submit(encode, group + 2 * WORKERS))
            writer.write(waiting.popleft().result())


def _encode_rows(
    raw: pa.Table, planned: list[Planned], encoder: Encoder, fitted: Fitted, keys: EventsConfig
) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for plan, spec in zip(planned, encoder.schema.features, strict=True):
        values = raw_values(raw, plan, fitted.priors)
        refuse_by_policy(spec, values)
        columns[spec.name] = encode_feature(encoder, spec, values)
    for task in encoder.schema.tasks:
        label, weight = f"label__{task.name}", f"weight__{task.name}"
        columns[label] = raw[label].fill_null(0.0).cast(pa.float32())
        columns[weight] = raw[weight].cast(pa.float32())
        _check_finite(columns, label, weight)
    columns |= {"__user": pa.array(key_hashes(raw, keys.user)), "__item": pa.array(key_hashes(raw, keys.item))}
    return pa.table({**columns, TIME: raw[TIME]})


def _check_finite(columns: dict[str, pa.Array], *names: str) -> None:
    for name in names:
        if not np.isfinite(columns[name].to_numpy()).all():
            kind, _, task = name.partition("__")
            message = f"task {task!r} has a {kind} that is not a finite number"
            raise DataError(message)


def _arrow_type(spec: FeatureSpec) -> pa.DataType:
    if isinstance(spec, IdSpec):
        return pa.int32() if spec.kind == "id" else pa.list_(pa.int32())
    return pa.float32()
