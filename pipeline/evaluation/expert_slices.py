"""Which experts each gate selects on which slice of the rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.files import write_text
from contract.schema import Schema
from contract.settings import Settings
from features.batches import BatchReader
from pipeline.evaluation.predictions import BATCH_ROWS
from pipeline.evaluation.slices import Masks
from serving.graph.engine import Engine

EXPERT_USE_FILE = "expert_use.json"
MOST_ROWS = 30_000
_MOST_VALUES = 8


class SliceUse(Settings):
    """How often each expert is selected on a slice's rows, and its mean weight there."""

    name: str
    rows: int
    share: tuple[float, ...]
    weight: tuple[float, ...]


class GateSlices(Settings):
    """A gate, its tasks, and its use of the experts on all rows and on each slice."""

    level: int
    tasks: tuple[str, ...]
    slices: tuple[SliceUse, ...]


class ExpertSlices(Settings):
    """``expert_use.json``; no gates where the graph does not tell of them."""

    rows: int
    gates: tuple[GateSlices, ...]

    @property
    def levels(self) -> int:
        """How many levels of experts there are."""
        return len({gate.level for gate in self.gates})

    def title(self, place: int) -> str:
        """What a gate is called: by its tasks, its level if there are several, its number if several are alike."""
        gate = self.gates[place]
        level = f", level {gate.level + 1}" if self.levels > 1 else ""
        alike = [p for p, each in enumerate(self.gates) if (each.level, each.tasks) == (gate.level, gate.tasks)]
        number = f", gate {alike.index(place) + 1} of {len(alike)}" if len(alike) > 1 else ""
        return f"{', '.join(gate.tasks)}{level}{number}"

    def save(self, directory: Path) -> None:
        """Write ``expert_use.json``."""
        write_text(self.model_dump_json() + "\n", directory / EXPERT_USE_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where there is none.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / EXPERT_USE_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"{directory / EXPERT_USE_FILE} cannot be read: {error}; evaluate again"
            raise DataError(message) from error


def expert_slices(engine: Engine, data: Path, schema: Schema, slices: Mapping[str, Masks]) -> ExpertSlices | None:
    """Ask the graph for the experts of the first `MOST_ROWS` rows, in the order of reading.

    `slices` are masks of all rows in that order, by slice and value. None for a graph without gates.

    Raises:
        PredictionError: the graph fails.
    """
    weights: list[list[NDArray[np.float32]]] = []
    tasks: list[tuple[int, tuple[str, ...]]] = []
    rows = 0
    for batch in BatchReader(data, schema, BATCH_ROWS).epoch():
        _, use = engine.predict_with_experts(batch.inputs)
        if not use.gates:
            return None
        tasks = [(gate.level, gate.tasks) for gate in use.gates]
        weights.append([np.asarray(gate.weights, dtype=np.float32) for gate in use.gates])
        rows += batch.rows
        if rows >= MOST_ROWS:
            break
    if not weights:
        return None
    gates = [np.concatenate([part[number] for part in weights]) for number in range(len(tasks))]
    parts = {"all rows": np.ones(rows, dtype=bool)} | _parts(slices, rows)
    return ExpertSlices(
        rows=rows,
        gates=tuple(
            GateSlices(level=level, tasks=names, slices=tuple(_use(name, mask, gate) for name, mask in parts.items()))
            for (level, names), gate in zip(tasks, gates, strict=True)
        ),
    )


def _parts(slices: Mapping[str, Masks], rows: int) -> dict[str, NDArray[np.bool_]]:
    """The slices with rows among the first ones, by a name that says both slice and value."""
    return {
        f"{name.replace('_', ' ')}: {value}": mask[:rows]
        for name, masks in slices.items()
        for value, mask in list(masks.items())[:_MOST_VALUES]
        if mask[:rows].any()
    }


def _use(name: str, mask: NDArray[np.bool_], weights: NDArray[np.float32]) -> SliceUse:
    mine = weights[mask]
    return SliceUse(
        name=name,
        rows=int(mask.sum()),
        share=tuple((mine != 0).mean(axis=0).round(4).tolist()),
        weight=tuple(mine.mean(axis=0).round(4).tolist()),
    )
