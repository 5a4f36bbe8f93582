"""Build features: raw Parquet in; encoded training Parquet, schema, vocabularies and online tables out."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from contract.errors import DataError
from contract.files import exclusive, recover, replacing, scratch_beside
from contract.graph_names import ONLINE_FOLDER, PRIORS_FILE
from features.encode.encoder import Encoder
from features.encode.fit_encoders import Previous, fit
from features.encode.fitted_schema import fitted_schema
from features.encode.write_splits import assemble
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import Progress
from features.incremental.log_rows import log_rows
from features.incremental.partition_store import PartitionStore
from features.incremental.raw_dataset import RawDataset
from features.online.build_tables import build_online
from features.online.raw_requests import replay_rows
from features.point_in_time.aggregates import added_columns, refuse_tiny_addends
from features.quality.check_data import check_quality, save_report
from features.quality.quality_page import quality_page
from features.served.served_events import with_served_rows
from features.served.served_features import ServedFeatures

SERVED_FOLDER = "served"
"""Beside kept days: the log of served requests as events."""


@dataclass(frozen=True)
class FeatureBuild:
    """What a build made: the directory, its schema's fingerprint, the rows of each split, and the days it reused.

    `unlearned` says by task why training rows teach nothing of it.
    """

    directory: Path
    fingerprint: str
    rows: dict[str, int]
    features: int
    cutoff_ms: int
    days_reused: int
    days_built: int
    reuse: str
    unlearned: dict[str, str]


def build(config: FeaturesConfig, directory: Path, progress: Progress) -> FeatureBuild:
    """Build into `directory`, replacing what an earlier build left there; on failure nothing there is changed.

    The rows of the log's days are kept in a directory of that name and ``-days``, from which the next build takes those
    that have not changed.

    `progress` is called with a few words as each stage begins.

    Raises:
        DataError: sources that cannot be used.
        ConfigError: a recipe that does not fit them.
    """
    days = directory.with_name(f"{directory.name}-days")
    with exclusive(days):
        recover(directory)
        with scratch_beside(directory) as raw, replacing(directory) as finished:
            store = PartitionStore(days if config.incremental else raw / "days")
            config = with_served_rows(config, days / SERVED_FOLDER)
            try:
                result = _build(config, raw, finished, store, directory, progress)
            except OSError as error:
                _name_damage(error, days)
                raise
    return replace(result, directory=directory)


def _build(
    config: FeaturesConfig, raw: Path, finished: Path, store: PartitionStore, last: Path, progress: Progress
) -> FeatureBuild:
    with log_rows(config, store, raw, progress) as log:
        work, timeline, planned = log.work, log.timeline, log.planned
        sampled = dict.fromkeys([*(c for plan in planned for c in plan.raw), *added_columns(config).values()])
        raw_dataset = RawDataset.open(log.connection, work, config, timeline.last_ms, tuple(sampled))
    refuse_tiny_addends(raw_dataset.sample, config)
    progress("fitting vocabularies and quantiles")
    fitted = fit(raw_dataset, planned, config, Previous.load(last) if config.grow else None)
    schema = fitted_schema(config, fitted, timeline, raw_dataset.schema)
    encoder = Encoder(schema, fitted.vocabularies)
    progress("encoding")
    served = None if config.events.served is None else ServedFeatures(Path(config.events.served))
    encoded = assemble(raw_dataset, planned, encoder, fitted, config, store.encoded, finished, served)
    progress("data quality and online tables")
    with ThreadPoolExecutor(1) as worker:
        online = worker.submit(build_online, raw, finished / ONLINE_FOLDER, planned, timeline, encoder, fitted)
        report = check_quality(raw_dataset, encoded, finished, planned, schema, fitted, config, last)
        report = report.model_copy(update={"cutoff_ms": timeline.cutoff_ms})
        save_report(report, finished, quality_page(report))
        online.result()
    schema.save(finished)
    fitted.vocabularies.save(finished)
    (finished / PRIORS_FILE).write_text(json.dumps(fitted.priors, indent=1) + "\n", encoding="utf-8")
    progress("replaying training rows as requests")
    replay_rows(raw_dataset, encoded, planned, fitted.priors, finished, as_computed=served is not None)
    for name, why in sorted(served.computed.items()) if served else ():
        progress(f"feature {name!r} {why} by a version in the log: its values are computed")
    for leak in report.leaks:
        leak_text = f"feature {leak['feature']!r} alone tells {leak['task']!r} ({leak['measure']} {leak['value']})"
        progress(f"{leak_text}: is it known before the label? then name it in data.checks.allow")
    result = FeatureBuild(
        finished,
        schema.fingerprint(),
        raw_dataset.counts,
        len(schema.features),
        timeline.cutoff_ms,
        *work.days,
        str(work),
        fitted.unlearned,
    )
    facts = {key: value for key, value in asdict(result).items() if key != "directory"}
    (finished / "build.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    store.save_last(work.log)
    return result


def _name_damage(error: OSError, days: Path) -> None:
    """Say what to do about kept rows that are no longer what was written.

    Raises:
        DataError: if that is what went wrong.
    """
    if "CRC" in str(error):
        message = f"a day kept in {days} is damaged ({error}); remove that directory, and every day is built again"
        raise DataError(message) from error
