"""Sampled negatives: for each event of a log of positives, items that its user did not take.

Draws are hashes of the seed, the event's keys, its time and the number of the draw, so that they do not depend on the
order of rows, on the engine or on how often features are built.
"""

from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.columns import TIME
from contract.errors import ConfigError
from contract.hashing import Hashes, combine, hash_array
from features.feature_config import FeaturesConfig, NegativesConfig
from features.source.parquet_files import write_table
from features.source.query_engine import Backend, numbered, read_parquet, to_arrow
from features.source.row_types import EVENT, KIND, OBSERVED, ORDER, SAMPLED

_SOURCE, _DRAWN = "__source", "__drawn"


def with_negatives(connection: Backend, log: ir.Table, config: FeaturesConfig, scratch: Path) -> ir.Table:
    """The log with its sampled negatives, and the column `observed`.

    Raises:
        ConfigError: a log without items, or whose own columns describe them.
    """
    if config.negatives is None:
        return log
    item = _check(config, log)
    order = [TIME, ORDER, *(key for key in (config.events.user, item) if key)]
    rows = numbered(connection, "numbered", log, _SOURCE, order, 0)
    keys = [key for key in (config.events.user, item) if key]
    events = rows.filter((rows[KIND] == EVENT) & rows[item].notnull())
    drawn = draw_negatives(to_arrow(connection, events.select(_SOURCE, TIME, *keys)), config, item)
    write_table(drawn, scratch / "negatives.parquet")
    negatives = read_parquet(connection, [str(scratch / "negatives.parquet")])
    drawn_rows = rows.inner_join(negatives, _SOURCE)
    values = {c: drawn_rows[c] for c in log.columns if c != KIND}
    sampled = drawn_rows.select(
        **{**values, item: drawn_rows[_DRAWN].cast(log[item].type())},
        **{KIND: ibis.literal(SAMPLED, "int8"), OBSERVED: ibis.literal(0, "int8")},
    )
    seen = rows.drop(_SOURCE).mutate(**{OBSERVED: ibis.literal(1, "int8")})
    return ibis.union(seen, sampled.select(seen.columns))


def _check(config: FeaturesConfig, log: ir.Table) -> str:
    item = config.events.item
    if item is None or config.events.item_columns:
        message = (
            "data.negatives needs data.events.item, and data.events.item_columns empty: what describes an item must "
            "come from data.items, because the log does not say it of an item that it does not show"
        )
        raise ConfigError(message)
    if OBSERVED in log.columns:
        message = f"data.negatives adds the column {OBSERVED!r}, but the log has one of that name; rename it"
        raise ConfigError(message)
    return item


def draw_negatives(events: pa.Table, config: FeaturesConfig, item: str) -> pa.Table:
    """Row numbers of events with a drawn item each; draws of items that the user has in the log are dropped."""
    settings = config.negatives or NegativesConfig(per_event=1)
    items = events[item].combine_chunks()
    counts = items.value_counts().flatten()
    order = pc.sort_indices(counts[0])
    catalogue, seen = counts[0].take(order), counts[1].take(order).to_numpy()
    upper = np.cumsum(seen if settings.by == "popularity" else np.ones(len(seen)))
    item_hashes = hash_array(items)
    user_hashes = hash_array(events[config.events.user]) if config.events.user else np.ones_like(item_hashes)
    taken = np.sort(combine([user_hashes, item_hashes]))
    seeds = hash_array(pa.array(np.full(len(events), config.seed)))
    base = combine([seeds, user_hashes, item_hashes, hash_array(events[TIME])])
    catalogue_hashes = hash_array(catalogue)
    sources, drawn = [], []
    for number in range(settings.per_event):
        places = _place(combine([base, hash_array(pa.array(np.full(len(events), number)))]), upper)
        fresh = ~_among(combine([user_hashes, catalogue_hashes[places]]), taken)
        sources.append(events[_SOURCE].to_numpy()[fresh])
        drawn.append(places[fresh])
    return pa.table({_SOURCE: np.concatenate(sources), _DRAWN: catalogue.take(pa.array(np.concatenate(drawn)))})


def _place(hashes: Hashes, upper: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which stretch of the line up to ``upper[-1]`` each hash falls into."""
    share = (hashes >> np.uint64(11)).astype(np.float64) / 2.0**53
    return np.minimum(np.searchsorted(upper, share * upper[-1], side="right"), len(upper) - 1)


def _among(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(hashes), dtype=np.bool_)
    return np.asarray(known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes)
