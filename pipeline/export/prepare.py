"""Whether items are prepared in a bundle, and the golden requests that prove it.

Shape legend: N candidate rows, I items.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.errors import ExportError
from contract.graph_names import ONLINE_FOLDER, PREPARED_FILE, PREPARED_ROWS_FILE
from contract.inputs import Inputs
from contract.prepared import taken, with_items
from features.online.online_table import OnlineTables
from features.online.prepared_items import item_inputs, preparable
from models.export import ExportReport
from models.export.prepared_export import PreparedGraph, export_prepared
from models.export_graph.item_shares import PreparedItems
from models.ranker import Ranker

Prepare = Literal["items", "none", "auto"]
WORTH = 2**15
"""Multiplications saved for a candidate from which on a second graph in the bundle is worth it."""
MOST_BYTES = 2**31
"""Rows of items beyond which ``auto`` leaves the choice to whoever pays for the memory."""


@dataclass(frozen=True)
class Preparation:
    """What was prepared and why, or why nothing was; `saved` multiplications a candidate."""

    items: int = 0
    bytes_an_item: int = 0
    raw_bytes_an_item: int = 0
    saved: int = 0
    features: tuple[str, ...] = ()
    reason: str = ""


def prepare(
    ranker: Ranker, report: ExportReport, features_dir: Path, sample: Inputs, out: Path, wanted: Prepare
) -> tuple[Preparation, PreparedItems | None]:
    """Write the prepared graph into `out` if it is wanted and, for ``auto``, worth its bytes.

    Raises:
        ExportError: ``items`` were asked for and cannot be prepared, or the graph answers differently.
    """
    for name in (PREPARED_FILE, PREPARED_ROWS_FILE):
        # Those of an earlier export would be published beside a graph of other weights.
        (out / name).unlink(missing_ok=True)
    if wanted == "none":
        return Preparation(reason="not asked for"), None
    table = OnlineTables.open(features_dir / ONLINE_FOLDER).item
    names = preparable(ranker.schema, table)
    if table is None or not names:
        return _nothing("no feature hangs on the item alone", wanted)
    items = PreparedItems(names, item_inputs(ranker.schema, table))
    try:
        graph = PreparedGraph(ranker, report, items)
    except ExportError as error:
        return _nothing(str(error), wanted)
    raw = sum(array.nbytes for array in (table.ids, table.dense)) // items.inputs.rows
    preparation = Preparation(items.inputs.rows, graph.bytes_an_item, raw, graph.saved, tuple(sorted(names)))
    figures = f"{preparation.saved} multiplications a candidate saved for {preparation.bytes_an_item} bytes an item"
    if wanted == "auto" and (preparation.saved < WORTH or preparation.items * preparation.bytes_an_item > MOST_BYTES):
        return Preparation(reason=f"not worth it: {figures}, {preparation.items} items"), None
    export_prepared(graph, sample, out / PREPARED_FILE)
    return Preparation(**asdict(preparation) | {"reason": figures}), items


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
