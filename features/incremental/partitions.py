"""Days of the log, and the partitions they are kept in: whole days in a row, with a stamp of all that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ibis.expr.types as ir

from contract.digests import code_digest, digest_of
from contract.durations import milliseconds
from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.source.query_engine import Backend, row_hash, to_arrow
from features.source.times import event_ms
from features.source.used_columns import raw_columns
from features.source.zones import day_begin_ms, day_of

_DIGEST_BITS = 31
"""Row hashes are added up in two parts of so many bits: a day of 2**32 rows has sums of 64 bits."""
_BUILD = "features.build"
"""The module that builds features: kept days were made by all that it imports."""
_TABLES = {table: {"verify": True, "late": True, "until": True} for table in ("events", "users", "items", "past")}
_HOW_IT_RUNS = dict.fromkeys(("memory_limit", "threads", "spark_master", "checks", "grow", "incremental"), True)


class DayFacts(NamedTuple):
    """A day of the log: how many events, a digest of them that no order changes, and the time of the last."""

    rows: int
    digest: int
    last_ms: int


def add_facts(one: Mapping[int, DayFacts], other: Mapping[int, DayFacts]) -> dict[int, DayFacts]:
    """The days of two logs together, in order."""
    total = dict(one)
    for day, facts in other.items():
        before = total.get(day, DayFacts(0, 0, facts.last_ms))
        total[day] = DayFacts(
            before.rows + facts.rows, before.digest + facts.digest, max(before.last_ms, facts.last_ms)
        )
    return dict(sorted(total.items()))


@dataclass(frozen=True)
class Partition:
    """Days `first` to `last` (numbers since 1970 in the log's zone); `stamp` tells all that its rows depend on."""

    first: int
    last: int
    days: int
    stamp: str


def day_facts(connection: Backend, events: ir.Table, config: FeaturesConfig) -> dict[int, DayFacts]:
    """Facts by day in order; a log without time is one day."""
    ms = event_ms(events, config)
    used = raw_columns(config, config.events)
    whole = row_hash(connection, events, [c for c in events.columns if c in used])
    rows = events.select(day=day_of(ms, config.events.time_zone), ms=ms, digest=whole)
    low, high = rows["digest"] % 2**_DIGEST_BITS, (rows["digest"] >> _DIGEST_BITS) % 2**_DIGEST_BITS
    facts = rows.group_by("day").aggregate(
        rows=rows.count(), low=low.sum().cast("int64"), high=high.sum().cast("int64"), last_ms=rows["ms"].max()
    )
    days = to_arrow(connection, facts.order_by("day")).to_pylist()
    return {row["day"]: DayFacts(row["rows"], row["low"] + (row["high"] << 64), row["last_ms"]) for row in days}


def partitions(facts: Mapping[int, DayFacts], config: FeaturesConfig, seed: str) -> tuple[Partition, ...]:
    """Cut the log into runs of whole days with at least `partition_rows` events each, from the first day on.

    A partition's stamp covers the one before it, and the log's end while labels of its days may still change. Sampled
    negatives depend on the whole log, which is then one partition.

    Raises:
        DataError: no day; the log begins after `until`.
    """
    if not facts:
        message = f"data.events has no rows up to {config.events.until}, where `until` ends the log; name a later day"
        raise DataError(message)
    end = max(day.last_ms for day in facts.values())
    lag = max((milliseconds(task.within) for task in config.tasks if task.within), default=0)
    finished: list[Partition] = []
    run: list[int] = []
    stamp = seed
    for day_number, day in enumerate(facts):
        run.append(day)
        is_last = day_number == len(facts) - 1
        full = sum(facts[d].rows for d in run) >= config.events.partition_rows
        if is_last or (full and config.negatives is None):
            final = not lag or day_begin_ms(day + 1, config.events.time_zone) + lag <= end
            stamp = digest_of(stamp, [(d, facts[d].rows, facts[d].digest) for d in run], None if final else end)
            finished.append(Partition(run[0], day, len(run), stamp))
            run = []
    return tuple(finished)


def recipe_digest(config: FeaturesConfig, events: ir.Table, past: object, memo: Path) -> str:
    """A digest of what every row depends on besides the log: recipe, columns, past events, and this code.

    `memo` is the file in which the code's digest is remembered; where no rows are kept, no later code can meet them.
    """
    settings = config.model_dump(mode="json", exclude={**_HOW_IT_RUNS, **_TABLES})
    used = raw_columns(config, config.events)
    columns = [(name, str(kind)) for name, kind in events.schema().items() if name in used]
    code = code_digest(_BUILD, memo) if config.incremental else None
    return digest_of(settings, columns, past, code)
