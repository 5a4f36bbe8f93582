"""A recipe over a sample of its log, small enough to be built at once: whole users, from all of the log's time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis.expr.types as ir

from features.feature_config import ChecksConfig, FeaturesConfig
from features.incremental.failed_place import unverified
from features.source.entities import Sources, read_sources
from features.source.query_engine import Backend, connect, disconnect, save_parquet, scalar
from features.source.tables import key_of
from features.source.used_columns import used_columns
from features.split_config import SplitByHash
from features.table_config import EntityConfig, EventsConfig

_LOOKED_AT = 2_000_000
"""Rows from which the sample is taken."""


@contextmanager
def sampled(config: FeaturesConfig, rows: int, *, drawn: bool = True) -> Iterator[tuple[FeaturesConfig, Path]]:
    """The recipe over about so many rows, and a folder to build in; pages are not verified, and nothing is refused.

    Validation rows are `drawn`, or else those of the recipe, where the sample is of all of the log's time.

    Raises:
        DataError: a table that cannot be used.
        ConfigError: an expression that cannot be compiled.
    """
    with TemporaryDirectory() as folder:
        connection = connect("1GB", Path(folder))
        try:
            sources = read_sources(connection, unverified(config))
            small = save_sample(connection, sources, config, rows, Path(folder), drawn=drawn)
        finally:
            disconnect(connection)
        yield small, Path(folder)


def save_sample(
    connection: Backend, sources: Sources, config: FeaturesConfig, rows: int, folder: Path, *, drawn: bool = True
) -> FeaturesConfig:
    """The recipe over about so many rows of sources that are open, saved in a folder; see `sampled`."""
    small, whole = _save(connection, sources, config, rows, folder)
    split = config.split if whole and not drawn else SplitByHash(by="random", valid=0.3)
    return small.model_copy(update={"split": split})


def _save(
    connection: Backend, sources: Sources, config: FeaturesConfig, rows: int, folder: Path
) -> tuple[FeaturesConfig, bool]:
    """The recipe over tables that were saved in a folder, and whether they are of all of the log's time."""
    events = config.events
    used = used_columns(config) | {name for name in (events.time, *events.user_columns, *events.item_columns) if name}
    head, whole = _some(connection, sources.events, events.user, rows)
    log = head.select([c for c in head.columns if c in used])
    save_parquet(connection, log, folder / "events.parquet", durable=False)
    kept = {
        name: getattr(events, name) for name in ("user", "item", "time", "time_zone", "user_columns", "item_columns")
    }
    changed: dict[str, object] = {"events": EventsConfig(path=str(folder / "events.parquet"), verify=False, **kept)}
    for side, table in sources.entities.items():
        key, path = key_of(config, side), folder / f"{side}s.parquet"
        known_at = getattr(config, f"{side}s").known_at
        wanted = [c for c in table.columns if c in used or c in (key, known_at)]
        save_parquet(connection, table.select(wanted).semi_join(head, key), path, durable=False)
        changed[f"{side}s"] = EntityConfig(path=str(path), key=key, known_at=known_at, verify=False)
    features = tuple(feature.model_copy(update={"separator": None}) for feature in config.features)
    quiet = ChecksConfig(leakage="warn" if config.checks.leakage != "off" else "off", allow=config.checks.allow)
    changed |= {"features": features, "labels": (), "past": None, "engine": "duckdb", "incremental": False}
    changed |= {"checks": quiet, "grow": False}
    return config.model_copy(update=changed), whole


def _some(connection: Backend, events: ir.Table, user: str | None, rows: int) -> tuple[ir.Table, bool]:
    """About so many rows, of some users all, and whether they are of all of the log's time."""
    head = events.limit(_LOOKED_AT)
    total = int(scalar(connection, head.count()))
    if total <= rows:
        return head, True
    if user is not None:
        some = head.filter((head[user].hash().abs() % -(-total // rows)) == 0)
        if int(scalar(connection, some.count())) * 2 >= rows:
            return some, total < _LOOKED_AT
    return head.limit(rows), False
