"""From a recipe's sources to the raw rows of all partitions: what every build begins with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import Progress, compute_rows
from features.incremental.failed_place import explain
from features.incremental.partition_store import PartitionStore
from features.incremental.reuse import PartitionWork, plan_work
from features.point_in_time.feature_plan import FeaturePlan, plan_features
from features.point_in_time.timeline import Timeline, build_timeline
from features.source.entities import read_sources
from features.source.query_engine import Backend, connect, disconnect, engine_errors


@dataclass(frozen=True)
class LogRows:
    """The partitions' raw rows on disk, the features planned on them, and the engine that is still open."""

    connection: Backend
    work: PartitionWork
    timeline: Timeline
    planned: list[FeaturePlan]


@contextmanager
def log_rows(
    config: FeaturesConfig, store: PartitionStore, scratch: Path, progress: Progress, *, probed: bool = True
) -> Iterator[LogRows]:
    """Compute the raw rows that the store does not have yet, for as long as the engine is needed.

    Those of users, items and pairs, of which online tables are made, only where they are `probed`.

    Raises:
        DataError: sources that cannot be used.
        ConfigError: a recipe that does not fit them.
    """
    progress("reading sources")
    connection = connect(
        config.memory_limit, scratch, engine=config.engine, master=config.spark_master, threads=config.threads
    )
    try:
        sources = read_sources(connection, config, store.known_files())
        work = plan_work(connection, sources, config, store)
        timeline = build_timeline(connection, config, sources, work.span, scratch, work.carry_over, probed=probed)
        planned = plan_features(config, timeline.ownership)
        compute_rows(connection, timeline, planned, config, work.to_build(config.events.time_zone), scratch, progress)
        yield LogRows(connection, work, timeline, planned)
    except engine_errors() as error:
        raise DataError(explain(connection, config, error)) from error
    finally:
        disconnect(connection)
