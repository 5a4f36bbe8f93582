"""Embedding tables that a card's graphs take as inputs: on the card, or in the host's memory where they do not fit.

One copy serves all graphs of a bundle. In the host's memory tables lie in locked pages, out of which the card's kernels
read the rows of a run over the bus: a request of 1,000 candidates with 15 ids of dimension 32 reads 2 MB, .04 ms at 50
GB/s. Nothing is cached on the card (docs/gpu.md reckons why), so tables that fit are kept there. On a processor they
are mapped from their file.

Source: CUDA C++ Programming Guide, "Mapped Memory".

Shape legend: V rows of a table, K embedding dim.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import IntegrityError
from contract.graph_names import CARD_TABLES
from contract.settings import Settings
from serving.graph.pinned_memory import device_address, free_bytes, pinned_zeros

TablePlace = Literal["auto", "card", "host"]
RESERVE = 2**31
"""Bytes of a card that ``auto`` leaves for weights and runs."""


class TableFact(Settings):
    """Where a table's numbers lie in the bundle."""

    file: str
    offset: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "float16", "uint8", "int8"]
    shape: tuple[Annotated[int, Field(ge=0)], ...]

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


_FACTS = TypeAdapter(dict[str, TableFact])


@dataclass(frozen=True)
class HeldTable:
    """A table [V, K] of the host, and what a card reads: its copy there, or the address of these pages."""

    array: NDArray[Any]
    on_card: Any = None
    address: int | None = None

    def bind(self, binding: Any, name: str) -> None:
        """Give it to a run."""
        if self.on_card is not None:
            binding.bind_ortvalue_input(name, self.on_card)
        elif self.address is not None:
            binding.bind_input(name, "cuda", 0, self.array.dtype.type, self.array.shape, self.address)
        else:
            binding.bind_cpu_input(name, self.array)


class CardTables:
    """The tables of a bundle's graphs, each held once."""

    def __init__(self, place: TablePlace = "auto") -> None:
        """Hold none yet."""
        self._place, self._held, self._lock = place, dict[tuple[str, int], HeldTable](), threading.Lock()

    def of(self, directory: Path, properties: Mapping[str, str], *, cuda: bool) -> dict[str, HeldTable]:
        """Those that a graph asks for, by input name.

        Raises:
            IntegrityError: the graph's property is damaged, or a file is too short.
        """
        try:
            facts = _FACTS.validate_python(json.loads(properties.get(CARD_TABLES, "{}")))
        except (ValueError, ValidationError) as error:
            message = f"{directory}: the property {CARD_TABLES} is wrong ({error}); export the model again"
            raise IntegrityError(message) from error
        with self._lock:
            return {name: self._hold(directory / Path(fact.file).name, fact, cuda=cuda) for name, fact in facts.items()}

    def _hold(self, path: Path, fact: TableFact, *, cuda: bool) -> HeldTable:
        key = str(path), fact.offset
        if key not in self._held:
            self._held[key] = self._placed(_mapped(path, fact), cuda=cuda)
        return self._held[key]

    def _placed(self, array: NDArray[Any], *, cuda: bool) -> HeldTable:
        if not cuda:
            return HeldTable(array)
        if self._place == "host" or (self._place == "auto" and not _fits(array.nbytes)):
            pages = pinned_zeros(array.shape, array.dtype.type)
            pages[...] = array
            if (address := device_address(pages)) is not None:
                return HeldTable(pages, address=address)
        return HeldTable(array, on_card=ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", 0))


def _fits(size: int) -> bool:
    free = free_bytes()
    return free is None or size + RESERVE <= free


def _mapped(path: Path, fact: TableFact) -> NDArray[Any]:
    try:
        return np.memmap(path, np.dtype(fact.dtype), "r", fact.offset, fact.shape)
    except (OSError, ValueError) as error:
        message = f"{path} does not hold the table that the graph asks for ({error}); export the model again"
        raise IntegrityError(message) from error
