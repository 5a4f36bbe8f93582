"""Which of a bundle's graphs are run: those for processors, or those for a card where the bundle has them."""

from collections.abc import Collection
from dataclasses import dataclass

from contract.graph_names import (
    CUDA_MODEL_FILE,
    CUDA_PACKED_FILE,
    ITEM_PRIOR_FILE,
    MODEL_FILE,
    PACKED_FILE,
    PREPARED_FILE,
    PREPARED_ROWS_FILE,
    SHARES_FOLDER,
    TABLES_FILE,
    variant_of,
)
from contract.schema import SCHEMA_FILE
from serving.graph.cuda_tolerance import CudaPrecision
from serving.store.bundle import Bundle

_BESIDE = (TABLES_FILE, PREPARED_ROWS_FILE, ITEM_PRIOR_FILE, SCHEMA_FILE)
"""What graphs read, and what the schema that they are bound to says."""


@dataclass(frozen=True)
class GraphFiles:
    """File names: of one request, of several requests in one run, and over prepared items."""

    model: str
    packed: str | None = None
    prepared: str | None = None
    for_card: bool = False
    """Whether they were made for a card."""


def graph_files(names: Collection[str], precision: CudaPrecision, *, cuda: bool) -> GraphFiles:
    """Choose among the files of a bundle.

    On a card, prepared items are left alone: fetching their shares moves more bytes than computing them anew.

    Example:
        >>> graph_files({"model.onnx", "packed.onnx"}, "fp32", cuda=True).packed
        'packed.onnx'
    """

    def there(name: str) -> str | None:
        return name if name in names else None

    if not cuda or CUDA_MODEL_FILE not in names:
        return GraphFiles(MODEL_FILE, there(PACKED_FILE), there(PREPARED_FILE))
    model, packed = CUDA_MODEL_FILE, CUDA_PACKED_FILE
    if variant_of(model, precision) in names:
        model, packed = variant_of(model, precision), variant_of(packed, precision)
    return GraphFiles(model, there(packed), for_card=True)


def same_graphs(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles have the same graphs, over the same rows, for the same schema."""
    return _of_graphs(one) == _of_graphs(other)


def _of_graphs(bundle: Bundle) -> dict[str, str]:
    return {
        name: entry.sha256
        for name, entry in bundle.manifest.files.items()
        if name.endswith(".onnx") or name in _BESIDE or name.startswith(f"{SHARES_FOLDER}/")
    }
