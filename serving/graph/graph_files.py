"""Which of a bundle's graphs are run: those for processors, in int8 where it has that, or those for a card."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from contract.graph_names import (
    CUDA_MODEL_FILE,
    CUDA_PACKED_FILE,
    FEWER_FILE,
    ITEM_PRIOR_FILE,
    MODEL_FILE,
    PACKED_FILE,
    PREPARED_FILE,
    PREPARED_ROWS_FILE,
    SHARES_FOLDER,
    TABLES_FILE,
    int8_of,
    variant_of,
)
from contract.schema import SCHEMA_FILE
from serving.graph.cuda_tolerance import CudaPrecision
from serving.store.bundle import Bundle

_BESIDE = (TABLES_FILE, PREPARED_ROWS_FILE, ITEM_PRIOR_FILE, SCHEMA_FILE)
"""What graphs read, and what the schema that they are bound to says."""


@dataclass(frozen=True)
class GraphFiles:
    """File names: of one request, of several requests in one run, over prepared rows, and with fewer experts."""

    model: str
    packed: str | None = None
    prepared: str | None = None
    fewer: str | None = None
    for_card: bool = False
    """Whether they were made for a card."""


def graph_files(names: Collection[str], precision: CudaPrecision, *, cuda: bool) -> GraphFiles:
    """Choose among the files of a bundle.

    On a card, prepared items are left alone: fetching their shares moves more bytes than computing them anew. int8
    layers have kernels on processors alone, so any other device takes the float32 graphs.

    Example:
        >>> graph_files({"model.onnx", "packed.onnx"}, "fp32", cuda=True).packed
        'packed.onnx'
        >>> graph_files({"model.onnx", "model.int8.onnx"}, "fp32", cuda=False).model
        'model.int8.onnx'
    """

    def there(name: str) -> str | None:
        return name if name in names else None

    def own(name: str) -> str | None:
        return (None if cuda else there(int8_of(name))) or there(name)

    if not cuda or CUDA_MODEL_FILE not in names:
        return GraphFiles(own(MODEL_FILE) or MODEL_FILE, own(PACKED_FILE), own(PREPARED_FILE), own(FEWER_FILE))
    model, packed = CUDA_MODEL_FILE, CUDA_PACKED_FILE
    if variant_of(model, precision) in names:
        model, packed = variant_of(model, precision), variant_of(packed, precision)
    return GraphFiles(model, there(packed), fewer=there(FEWER_FILE), for_card=True)


def graph_in(directory: Path, name: str = MODEL_FILE, *, cuda: bool = False) -> Path:
    """The graph `name` of a directory, or its int8 form where there is one and the device is a processor."""
    int8 = directory / int8_of(name)
    return int8 if not cuda and int8.is_file() else directory / name


def same_graphs(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles have the same graphs, over the same rows, for the same schema."""
    return _of_graphs(one) == _of_graphs(other)


def _of_graphs(bundle: Bundle) -> dict[str, str]:
    return {
        name: entry.sha256
        for name, entry in bundle.manifest.files.items()
        if name.endswith(".onnx") or name in _BESIDE or name.startswith(f"{SHARES_FOLDER}/")
    }
