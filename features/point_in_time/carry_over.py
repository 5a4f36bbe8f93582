"""What built days leave to the days to build: merged addends of aggregates, last events of histories, latest values.

A row's windows and lists reach back a known way. What lies further back is summed to one row per key for windows over
everything, or left out; sums are of whole numbers, so that merging changes no bit of them. What was merged is cached,
so that later only the days since are to be added.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from contract.columns import TIME
from features.source.query_engine import Backend, read_parquet, save_parquet
from features.source.row_types import ORDER, ROW

Rows = Callable[[ir.Table], ir.Table]

LAST = "/last"
"""The addend that is the time of the last event, of which windows take the latest."""


@dataclass(frozen=True)
class CarryOver:
    """Days that are built already, in the partitions `files`, which have `rows` rows as the timeline had them.

    `until_ms` is the first moment of the days to build. What is merged is cached in `folder` by its last partition.
    """

    files: tuple[Path, ...]
    folder: Path
    rows: int
    until_ms: int

    def merge(self, connection: Backend, name: str, choose: Rows, reduce: Rows) -> ir.Table:
        """What `reduce` takes for what `choose` takes of all rows: its own result, with rows it has not seen yet.

        What an earlier build cached under the name spares the rows of the partitions in it. It is merged again when the
        others have more rows than it, so that most days read little more than it and write nothing.
        """
        cached = {file.name.partition(".")[0]: file for file in self.folder.glob(f"*.{name}.parquet")}
        last_cached = max((place for place, file in enumerate(self.files) if file.stem in cached), default=-1)
        cached_file = cached[self.files[last_cached].stem] if last_cached >= 0 else None
        fresh_files = self.files[last_cached + 1 :]
        rows = None
        if fresh_files:
            rows = choose(read_parquet(connection, [str(file) for file in fresh_files]))
            if cached_file is not None:
                before = read_parquet(connection, [str(cached_file)])
                rows = ibis.union(before.cast(dict(rows.schema())).select(rows.columns), rows)
            if cached_file is None or _rows_of(fresh_files) > _rows_of([cached_file]):
                cached_file = self.folder / f"{self.files[-1].stem}.{name}.parquet"
                save_parquet(connection, reduce(rows), cached_file)
                rows = None
        for file in cached.values():
            if file != cached_file:
                file.unlink()
        return read_parquet(connection, [str(cached_file)]) if rows is None else rows


def _rows_of(files: Iterable[Path]) -> int:
    return sum(int(pq.read_metadata(file).num_rows) for file in files)


def merge_addends(flat: ir.Table, keys: tuple[str, ...], order: str, reach_from: int, *, all_time: bool) -> ir.Table:
    """Addends by key and `order`; those before `reach_from` become one just before it, or none without `all_time`."""
    if not all_time:
        flat = flat.filter(flat[order] >= reach_from)
    merged = flat.mutate(**{order: ibis.greatest(flat[order], ibis.literal(reach_from - 1, "int64"))})
    names = [c for c in flat.columns if c not in (*keys, order, ROW)]
    sums = {c: merged[c].max() if c == LAST else merged[c].sum().cast(flat[c].type()) for c in names}
    summed = merged.group_by([*keys, order]).aggregate(**sums)
    if ROW in flat.columns:
        summed = summed.mutate(**{ROW: ibis.literal(-1, "int64")})
    return summed.select(flat.columns)


def last_events(flagged: ir.Table, key: str, counts: str, number: int, before_ms: int) -> ir.Table:
    """Of the events that lists hold, each key's last `number` before a moment, and all from then on."""
    listed = flagged.filter(flagged[counts] == 1)
    near, far = listed.filter(listed[TIME] >= before_ms), listed.filter(listed[TIME] < before_ms)
    newest_first = ibis.window(group_by=key, order_by=[far[TIME].desc(), far[ORDER].desc(), far[ROW].desc()])
    ranked = far.mutate(__rank=ibis.row_number().over(newest_first))
    return ibis.union(ranked.filter(ranked["__rank"] < number).drop("__rank"), near)
