"""Gates: one paper a file, one interface (`base.Gate`), chosen by the `name` of their configuration."""

from typing import Annotated

from pydantic import Field

from models.gates.annealing import Schedule
from models.gates.comet import CometConfig
from models.gates.dense_to_sparse import DenseToSparseConfig
from models.gates.dselect_k import DSelectKConfig
from models.gates.gate import Gate, GateSettings, Routing
from models.gates.gumbel import GumbelConfig
from models.gates.hash import HashConfig
from models.gates.mask_moe import MaskMoEConfig
from models.gates.permutation import PermutationConfig
from models.gates.regularisers import Regularisers
from models.gates.softmax import SoftmaxConfig
from models.gates.top_any import TopAnyConfig
from models.gates.top_k import NoisyTopKConfig, TopKConfig
from models.gates.top_p import TopPConfig

GateConfig = Annotated[
    SoftmaxConfig
    | TopKConfig
    | NoisyTopKConfig
    | HashConfig
    | DSelectKConfig
    | CometConfig
    | GumbelConfig
    | DenseToSparseConfig
    | TopPConfig
    | TopAnyConfig
    | MaskMoEConfig,
    Field(discriminator="name"),
]
"""Any gate's configuration; in YAML, ``name`` says which."""


def build_gate(config: GateConfig, experts: int, routing_width: int) -> Gate:
    """Build the gate that a configuration names.

    `routing_width` is the width of the routing input; 0 builds a static gate, which weighs all rows alike.

    Raises ConfigError for a gate that cannot be built over so many experts.
    """
    return config.build(experts, routing_width)


__all__ = [
    "CometConfig",
    "DSelectKConfig",
    "DenseToSparseConfig",
    "Gate",
    "GateConfig",
    "GateSettings",
    "GumbelConfig",
    "HashConfig",
    "MaskMoEConfig",
    "NoisyTopKConfig",
    "PermutationConfig",
    "Regularisers",
    "Routing",
    "Schedule",
    "SoftmaxConfig",
    "TopAnyConfig",
    "TopKConfig",
    "TopPConfig",
    "build_gate",
]
