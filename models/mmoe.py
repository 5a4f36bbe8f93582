"""Multi-gate mixture of experts over an input matrix.

Source: Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
equations 5 to 7, with any gate of `models.gates` in place of the softmax, and optional shared layers before.

Shape legend: B rows, D inputs, E experts, O outputs of one expert, T tasks, G gates (T, or 1 if shared).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from features.schema import TaskSpec
from models.config import ModelConfig
from models.experts import Experts
from models.gates import Gate, Routing, build_gate
from models.mlp import mlp
from models.towers import Towers


class MMoEOutput(NamedTuple):
    """Raw outputs [B, T] and each gate's routing (one gate a task, or one for all)."""

    outputs_BT: Tensor
    routings: tuple[Routing, ...]


class MMoE(nn.Module):
    """Shared layers, experts, gates and towers."""

    def __init__(self, inputs: int, tasks: tuple[TaskSpec, ...], config: ModelConfig) -> None:
        """Build the network over an input of width `inputs`."""
        super().__init__()
        self.input_norm = nn.BatchNorm1d(inputs) if config.input_norm == "batch" else nn.Identity()
        self.bottom = mlp(inputs, config.bottom, config)
        shared = config.bottom[-1] if config.bottom else inputs
        self.experts = Experts(shared, config)
        gates = len(tasks) if config.gate_scope == "per_task" else 1
        routing_width = 0 if config.routing == "static" else shared
        self.gates = nn.ModuleList(build_gate(config.gate, config.experts, routing_width) for _ in range(gates))
        self.towers = Towers(self.experts.outputs, tasks, config)
        self.tasks = len(tasks)

    def forward(self, x_BD: Tensor, ids_B: Tensor | None = None) -> MMoEOutput:
        """Score rows; `ids_B` is the routing id of gates that hash it."""
        shared = self.bottom(self.input_norm(x_BD))
        answers_BEO = self.experts(shared)
        routings = tuple(gate(shared, ids_B) for gate in self.gates)
        mixtures_TBO = mix(answers_BEO, routings, self.tasks)
        return MMoEOutput(self.towers(mixtures_TBO).float(), routings)

    @property
    def typed_gates(self) -> list[Gate]:
        """The gates, one a task or one for all."""
        return [gate for gate in self.gates if isinstance(gate, Gate)]

    def step(self, global_step: int) -> None:
        """Advance the gates' schedules."""
        for gate in self.typed_gates:
            gate.step(global_step)


def mix(answers_BEO: Tensor, routings: tuple[Routing, ...], tasks: int) -> Tensor:
    """Weigh the experts' answers by each gate (equation 6): mixtures [T, B, O]."""
    rows = answers_BEO.shape[0]
    weights_BGE = torch.stack([r.weights_BE.expand(rows, -1) for r in routings], dim=1)
    mixtures_GBO = torch.bmm(weights_BGE.to(answers_BEO.dtype), answers_BEO).transpose(0, 1)
    return mixtures_GBO.expand(tasks, -1, -1)
