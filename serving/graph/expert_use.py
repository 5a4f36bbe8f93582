"""What a graph tells of its gates, and which experts an answer took.

Graphs say the latter by outputs that they compute anyway (``expert_weights_0`` ...), static gates by numbers in the
graph's properties, so that only who asks pays for the copy.

Shape legend: N candidate rows, E experts of a gate's level, A experts of all levels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import IntegrityError
from contract.graph_names import GATE_OUTPUT, GATES
from contract.settings import Settings
from serving.graph.answer import ExpertUse, GateUse


class GateFacts(Settings):
    """A gate as the graph describes it; `weights` [E] of a static one, whose graph has no output for it."""

    level: int = Field(ge=0)
    experts: int = Field(ge=1)
    tasks: tuple[str, ...]
    weights: tuple[float, ...] | None = None


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


def spread_use(use: ExpertUse, rows: NDArray[np.int64], candidates: int) -> ExpertUse:
    """What some candidates [M] took, among all of a request [N]; the others took no expert."""
    gates = []
    for gate in use.gates:
        weights = np.zeros((candidates, gate.weights.shape[1]), np.float32)
        weights[rows] = gate.weights
        gates.append(GateUse(gate.level, gate.tasks, weights))
    return ExpertUse(tuple(gates))
