"""Gates: one paper a file, one interface (`base.Gate`), chosen by the `name` of their configuration."""

from typing import Annotated

from pydantic import Field

from models.gates.base import Gate, GateSettings, Routing
from models.gates.dselect_k import DSelectKConfig, DSelectKGate
from models.gates.softmax import SoftmaxConfig, SoftmaxGate
from models.gates.top_k import NoisyTopKConfig, NoisyTopKGate, TopKConfig, TopKGate

GateConfig = Annotated[
    SoftmaxConfig | TopKConfig | NoisyTopKConfig | DSelectKConfig,
    Field(discriminator="name"),
]
"""Any gate's configuration; in YAML, ``name`` says which."""


def build_gate(config: GateConfig, experts: int, routing_width: int) -> Gate:
    """Build the gate that a configuration names.

    `routing_width` is the width of the routing input; 0 builds a static gate, which weighs all rows alike.

    Raises ConfigError for a gate that cannot be built over so many experts.
    """
    match config:
        case SoftmaxConfig():
            return SoftmaxGate(config, experts, routing_width)
        case TopKConfig():
            return TopKGate(config, experts, routing_width)
        case NoisyTopKConfig():
            return NoisyTopKGate(config, experts, routing_width)
        case DSelectKConfig():
            return DSelectKGate(config, experts, routing_width)


__all__ = [
    "DSelectKConfig",
    "Gate",
    "GateConfig",
    "GateSettings",
    "NoisyTopKConfig",
    "Routing",
    "SoftmaxConfig",
    "TopKConfig",
    "build_gate",
]
