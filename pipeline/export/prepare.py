"""Whether rows of online tables are prepared in a bundle, and the golden requests that prove it.

Shape legend: N candidate rows, I items.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.errors import ExportError
from contract.graph_names import (
    ONLINE_FOLDER,
    PREPARED_FILE,
    PREPARED_GOLDEN_FILE,
    PREPARED_ROWS_FILE,
    RAW_GOLDEN_FILE,
    SHARES,
    SHARES_FOLDER,
)
from contract.inputs import PARTS, Inputs, PartName
from contract.prepared import left_over, taken, with_items
from features.batches import BatchReader
from features.online.online_table import OnlineTable, OnlineTables
from features.online.prepared_items import features_of, item_inputs, part_inputs, preparable
from features.online.request_encoder import RankRequest, RequestEncoder
from features.online.share_rows import Floats, RowForm, ShareRows, ShareTables
from models.export import ExportReport
from models.export.prepared_export import PreparedGraph, export_prepared, export_shared
from models.export_graph.item_shares import PreparedItems
from models.export_graph.shared_tables import FirstLayer, PreparedShares, SharedTable, first_layer
from models.ranker import Ranker
from pipeline.export.post_export import BATCH, LabelledAnswers, compared, graph_runner, refuse_losses
from serving.graph.prepared_graph import PreparedEngine
from serving.store import golden

Prepare = Literal["auto", "items", "pairs", "users", "all", "none"]
"""``pairs`` and ``users`` come beside the items, ``all`` is all three."""
WORTH = 2**15
"""Multiplications saved for a candidate from which on a second graph in the bundle is worth it."""
MOST_BYTES = 2**31
"""Rows of items beyond which ``auto`` leaves the choice to whoever pays for the memory."""
PAIR_WORTH, PAIR_BYTES = 2**12, 2**27
"""The same of a table of pairs."""
_JUDGED = 65_536


@dataclass(frozen=True)
class TablePreparation:
    """One table: its rows and their bytes, multiplications saved by a row, and why it was prepared or not."""

    rows: int
    bytes_a_row: int
    raw_bytes_a_row: int
    saved: int
    prepared: bool
    reason: str


@dataclass(frozen=True)
class Preparation:
    """What was prepared and why, or why nothing was; `saved` multiplications per candidate."""

    items: int = 0
    bytes_an_item: int = 0
    raw_bytes_an_item: int = 0
    saved: int = 0
    features: tuple[str, ...] = ()
    reason: str = ""
    form: RowForm = "fp32"
    tables: Mapping[str, TablePreparation] = field(default_factory=dict)
    """By online table, where the sum of their rows is taken outside of the graph."""
    judged: Mapping[str, Any] = field(default_factory=dict)
    """By task the metric of validation rows before and after rounding the rows."""

    def __str__(self) -> str:
        if not self.features:
            return f"no rows are prepared: {self.reason}"
        tables = [name for name, table in self.tables.items() if table.prepared] or ["item"]
        return (
            f"prepared rows of {', '.join(tables)}: {self.bytes_an_item} bytes an item beside its own "
            f"{self.raw_bytes_an_item}, {self.saved} multiplications spared for a candidate"
        )


class Preparing(NamedTuple):
    """What is prepared of which model: `wanted` tables, their rows in `form`."""

    ranker: Ranker
    report: ExportReport
    features_dir: Path
    sample: Inputs
    out: Path
    wanted: Prepare
    form: RowForm = "fp32"


def prepare(job: Preparing) -> tuple[Preparation, PreparedItems | None]:
    """Write the prepared graph into `out` if it is wanted and, for ``auto``, worth its bytes.

    Returns:
        What was done, and the items where the graph holds their rows itself.

    Raises:
        ExportError: something was asked for and cannot be prepared, the graph answers differently, or smaller rows
            cost too much.
    """
    for name in (PREPARED_FILE, PREPARED_ROWS_FILE, PREPARED_GOLDEN_FILE):
        # Those of an earlier export would be published beside a graph of other weights.
        (job.out / name).unlink(missing_ok=True)
    shutil.rmtree(job.out / SHARES_FOLDER, ignore_errors=True)
    if job.wanted == "none":
        return Preparation(reason="not asked for"), None
    tables = OnlineTables.open(job.features_dir / ONLINE_FOLDER)
    names = preparable(job.ranker.schema, tables.item)
    if tables.item is None or not names:
        return _nothing("no feature hangs on the item alone", job.wanted)
    try:
        first_layer(job.ranker)
        shares, preparations = _chosen_tables(job, tables)
    except ExportError as error:
        if job.wanted not in {"auto", "items"} or job.form != "fp32":
            message = f"{error}; rows of items can still be prepared in float32: --prepare items --item-rows fp32"
            raise ExportError(message) from error
        return _in_graph(job, names, tables.item)
    return _outside(job, shares, preparations), None


def _chosen_tables(job: Preparing, tables: OnlineTables) -> tuple[PreparedShares | None, dict[str, TablePreparation]]:
    schema, by_name = job.ranker.schema, tables.by_name()
    shared, preparations = [], {}
    layer = FirstLayer(job.ranker, frozenset())
    for name, features in features_of(schema, tables).items():
        parts = {schema.part_of(spec) for spec in schema.features if spec.name in features}
        part: PartName = "request" if name == "user" else "candidate"
        if parts != {part}:
            continue
        table, saved = by_name[name], layer.columns(part, features) * layer.width
        size = layer.width * {"fp32": 4, "fp16": 2, "int8": 1}[job.form] + 4 * (job.form == "int8")
        reason = _why_not(name, saved, size * (len(table.keys) + 1), job)
        raw = _raw_bytes(table)
        figures = f"{saved} multiplications saved by a row of {size} bytes, {len(table.keys) + 1} rows"
        preparations[name] = TablePreparation(len(table.keys) + 1, size, raw, saved, not reason, reason or figures)
        if not reason:
            shared.append(SharedTable(name, part, features, part_inputs(schema.part(part), table)))
    shares = PreparedShares(job.ranker, shared) if preparations["item"].prepared else None
    return shares, beside_items(preparations)


def beside_items(preparations: dict[str, TablePreparation]) -> dict[str, TablePreparation]:
    """Tables are prepared beside the items or not at all, whatever they would save by themselves."""
    if preparations["item"].prepared:
        return preparations
    alone = "only beside rows of items, which are not prepared"
    return {
        name: replace(each, prepared=False, reason=alone) if each.prepared else each
        for name, each in preparations.items()
    }


def _why_not(name: str, saved: int, size: int, job: Preparing) -> str:
    """Why a table is not prepared; empty if it is."""
    if name == "user":
        is_requested = job.wanted in {"users", "all"}
        return (
            ""
            if is_requested
            else f"not asked for: {saved} multiplications once per request, and none of a store of users"
        )
    if name == "item":
        worth = job.wanted != "auto" or (saved >= WORTH and size <= MOST_BYTES)
        return "" if worth else f"not worth it: {saved} multiplications per candidate saved for {size} bytes"
    if job.wanted in {"items", "users"}:
        return "not asked for"
    if saved < PAIR_WORTH or (size > PAIR_BYTES and job.wanted == "auto"):
        return f"not worth it: {saved} multiplications per candidate saved for {size} bytes"
    return ""


def _raw_bytes(table: OnlineTable) -> int:
    """Bytes of a table's encoded row, without its key and the index of keys."""
    lists = sum(each.values.nbytes + each.offsets.nbytes for each in table.lists.values())
    return int(table.ids.nbytes + table.dense.nbytes + table.key_hashes.nbytes + lists) // (len(table.keys) + 1)


def _outside(job: Preparing, shares: PreparedShares | None, preparations: dict[str, TablePreparation]) -> Preparation:
    item = preparations["item"]
    if shares is None:
        return Preparation(reason=item.reason, tables=preparations)
    export_shared(job.ranker, job.report, shares, job.sample, job.out / PREPARED_FILE)
    judged = _judge(job, shares) if job.form != "fp32" else {}
    rows = {name: ShareRows.stored(values, job.form) for name, values in shares.rows.items()}
    ShareTables(rows).save(job.out / SHARES_FOLDER)
    saved = sum(each.saved for name, each in preparations.items() if each.prepared and name != "user")
    sizes = (item.rows, item.bytes_a_row, item.raw_bytes_a_row, saved)
    return Preparation(*sizes, tuple(sorted(shares.names)), item.reason, job.form, preparations, judged)


def _judge(job: Preparing, shares: PreparedShares) -> dict[str, Any]:
    """Round what the validation rows' own features add, and see what that costs.

    Raises:
        ExportError: too much.
    """
    schema = job.ranker.schema
    answer = graph_runner(job.out / PREPARED_FILE, schema)
    whole: list[tuple[Floats, Floats, Floats]] = []
    rounded: list[tuple[Floats, Floats, Floats]] = []
    batches = islice(BatchReader(job.features_dir / "valid", schema, BATCH).epoch(), _JUDGED // BATCH)
    for batch in batches:
        sums = [shares.of(batch.inputs, table.name) for table in shares.tables]
        parts = (left_over(getattr(batch.inputs, part), schema.part(part), shares.names) for part in PARTS)
        arrays = Inputs(*parts).arrays()
        stored = [ShareRows.stored(each, job.form).whole() for each in sums]
        for answers, rows in ((whole, sums), (rounded, stored)):
            answers.append((answer({**arrays, SHARES: np.sum(rows, axis=0)}), batch.labels, batch.weights))
    if not whole:
        message = f"there are no validation rows to judge {job.form} rows by; export with --item-rows fp32"
        raise ExportError(message)
    figures = compared(schema, LabelledAnswers(whole), LabelledAnswers(rounded))
    refuse_losses(f"{job.form} rows", figures)
    return figures


def _in_graph(job: Preparing, names: frozenset[str], table: OnlineTable) -> tuple[Preparation, PreparedItems | None]:
    items = PreparedItems(names, item_inputs(job.ranker.schema, table))
    try:
        graph = PreparedGraph(job.ranker, job.report, items)
    except ExportError as error:
        return _nothing(str(error), job.wanted)
    sizes = (items.inputs.rows, graph.bytes_an_item, _raw_bytes(table), graph.saved)
    preparation = Preparation(*sizes, tuple(sorted(names)))
    figures = f"{preparation.saved} multiplications per candidate saved for {preparation.bytes_an_item} bytes per item"
    bytes_ = preparation.items * preparation.bytes_an_item
    if job.wanted == "auto" and (preparation.saved < WORTH or bytes_ > MOST_BYTES):
        return Preparation(reason=f"not worth it: {figures}, {preparation.items} items"), None
    export_prepared(graph, job.sample, job.out / PREPARED_FILE)
    return replace(preparation, reason=figures), items


def write_prepared_golden(out: Path, features: Path) -> None:
    """Answer the raw golden requests in `out` by look-ups, prepared rows and their sum, if the graph takes that."""
    if not (out / SHARES_FOLDER).is_dir():
        return
    prepared = PreparedEngine(out)
    encoder = prepared.encoder(RequestEncoder.open(features))
    cases = {}
    for name, fields in golden.read_raw(out / RAW_GOLDEN_FILE).items():
        encoded = encoder.encode(RankRequest(**fields))
        if encoded.rows_of:
            cases[name] = golden.GoldenCase(encoder.whole(encoded), prepared.predict(encoded))
    golden.write(out / PREPARED_GOLDEN_FILE, cases)


def prepared_inputs(ranker: Ranker, items: PreparedItems, inputs: Inputs) -> tuple[Inputs, NDArray[np.int64]]:
    """A request with other candidates: as many prepared items, and their rows [N]; the last one is unknown."""
    count = inputs.candidate.rows
    rows = np.linspace(0, items.inputs.rows - 1, count).astype(np.int64)
    candidate = with_items(inputs.candidate, taken(items.inputs, rows), ranker.schema.candidate, items.names)
    return Inputs(inputs.request, candidate), rows


def _nothing(reason: str, wanted: Prepare) -> tuple[Preparation, None]:
    if wanted == "items":
        message = f"items cannot be prepared: {reason}; export with --prepare auto or none"
        raise ExportError(message)
    return Preparation(reason=reason), None


def as_json(preparation: Preparation) -> dict[str, Any]:
    """With plain values."""
    return asdict(preparation)
