"""Which experts an answer took, gate by gate.

Graphs say it by outputs that they compute anyway (``expert_weights_0`` ...), static gates by numbers in the graph's
properties, so that only who asks pays for the copy.

Shape legend: N candidate rows, E experts of a gate's level, A experts of all levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import IntegrityError
from contract.graph_names import GATE_OUTPUT, GATES
from contract.settings import Settings


class GateFacts(Settings):
    """A gate as the graph describes it; `weights` [E] of a static one, whose graph has no output for it."""

    level: int = Field(ge=0)
    experts: int = Field(ge=1)
    tasks: tuple[str, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class GateUse:
    """How a gate weighed the experts of its level, float32 [N, E]; 0 where it did not use one."""

    level: int
    tasks: tuple[str, ...]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class ExpertUse:
    """All gates of a model, level by level; none for a model without gates, or whose graph does not tell."""

    gates: tuple[GateUse, ...] = ()

    def used(self) -> NDArray[np.bool_]:
        """Which experts at least one gate used, level by level [N, A]."""
        levels: dict[int, NDArray[np.bool_]] = {}
        for gate in self.gates:
            own = gate.weights != 0
            levels[gate.level] = levels[gate.level] | own if gate.level in levels else own
        return np.concatenate([levels[level] for level in sorted(levels)], axis=1)

    @property
    def union_over_n(self) -> float:
        """The share of all experts that at least one gate used, the mean over the rows; 0 without gates."""
        return float(self.used().mean()) if self.gates else 0.0


_FACTS = TypeAdapter(tuple[GateFacts, ...])


def read_gates(properties: Mapping[str, str], outputs: Sequence[str]) -> tuple[GateFacts, ...]:
    """The gates that a graph tells of; none if it was exported before graphs did.

    Raises:
        IntegrityError: it tells of gates whose weights it does not answer.
    """
    try:
        gates = _FACTS.validate_json(properties.get(GATES, "[]"))
    except ValidationError as error:
        message = f"the graph's property {GATES} is wrong: {error.errors()[0]['msg']}; export the model again"
        raise IntegrityError(message) from error
    for number, gate in enumerate(gates):
        static = gate.weights is not None and len(gate.weights) == gate.experts
        if not static and f"{GATE_OUTPUT}{number}" not in outputs:
            message = f"the graph tells of gate {number} but answers no {GATE_OUTPUT}{number}; export the model again"
            raise IntegrityError(message)
    return gates


def outputs_of(gates: Sequence[GateFacts]) -> list[str]:
    """The graph's outputs to ask for."""
    return [f"{GATE_OUTPUT}{number}" for number, gate in enumerate(gates) if gate.weights is None]


def use_from(gates: Sequence[GateFacts], answers: Sequence[NDArray[np.float32]], rows: int) -> ExpertUse:
    """What the answers to `outputs_of` say about so many rows."""
    remaining = iter(answers)
    return ExpertUse(
        tuple(
            GateUse(
                gate.level,
                gate.tasks,
                next(remaining)
                if gate.weights is None
                else np.broadcast_to(np.array(gate.weights, np.float32), (rows, gate.experts)),
            )
            for gate in gates
        )
    )
