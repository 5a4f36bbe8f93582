"""The static gates of many tasks as the rows of one gate: their rules work row by row.

Shape legend: T tasks, E experts, L routing logits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from models.gates import GateConfig, Routing, build_gate
from models.gates.permutation import Permutation, assignment, sinkhorn


class TaskGates(nn.Module):
    """A gate of its own for each task; its answers are rows [T, E], and its penalties the means over tasks."""

    def __init__(self, config: dict[str, Any], experts: int, tasks: int, seeds: Sequence[int]) -> None:
        """Build the tasks' gates as `build_gate` does, for one seed after the other, and join their parameters."""
        super().__init__()
        settings = TypeAdapter[Any](GateConfig).validate_python(config)
        gates = []
        for seed in seeds:
            torch.manual_seed(seed)
            gates += [build_gate(settings, experts, 0) for _ in range(tasks)]
        own = [gate.permutation for gate in gates if gate.permutation is not None]
        self.gate, self.permutations = gates[0], _Permutations(own) if own else None
        for gate in gates:
            gate.permutation = None
        for name, parameter in list(self.gate.named_parameters()):
            joined = torch.cat([gate.get_parameter(name).detach() for gate in gates])
            setattr(self.gate, name, nn.Parameter(joined.view(-1, parameter.shape[1])))

    def forward(self) -> Routing:
        """Weights and selections [T, E]."""
        routing: Routing = self.gate(None)
        return routing if self.permutations is None else self.permutations(routing)

    def step(self, number: int) -> None:
        """Advance the schedules."""
        self.gate.step(number)
        if self.permutations is not None:
            self.permutations.step(number)


class _Permutations(nn.Module):
    """The permutations of the tasks' gates, which all have the same schedule; as `Permutation`, row by row."""

    def __init__(self, permutations: list[Permutation]) -> None:
        super().__init__()
        self.config = permutations[0].config
        self.log_alpha_TEE = nn.Parameter(torch.stack([each.log_alpha_EE.detach() for each in permutations]))
        self.temperature, self.rounds = self.config.at(0)
        self.index_TE: Tensor | None = None

    def step(self, number: int) -> None:
        """Set the temperature and the rounds; from the last step of the search on, the order is that of the moment."""
        self.temperature, self.rounds = self.config.at(number)
        if number >= self.config.steps and self.index_TE is None:
            self.index_TE = self._nearest()

    def forward(self, routing: Routing) -> Routing:
        """Mix while the order is learned, else gather; evaluation takes the nearest order."""
        if self.training and self.index_TE is None:
            return self._mix(routing)
        index_TE = self._nearest() if self.index_TE is None else self.index_TE
        return routing._replace(
            weights_BE=routing.weights_BE.gather(1, index_TE), selected_BE=routing.selected_BE.gather(1, index_TE)
        )

    def _mix(self, routing: Routing) -> Routing:
        soft_TEE = sinkhorn(self.log_alpha_TEE, self.temperature, self.rounds)
        mixed_TE = torch.bmm(routing.weights_BE.unsqueeze(1), soft_TEE).squeeze(1)
        before_T1, after_T1 = routing.weights_BE.sum(1, keepdim=True), mixed_TE.sum(1, keepdim=True)
        weights_TE = mixed_TE * (before_T1 / after_T1.clamp_min(torch.finfo(mixed_TE.dtype).tiny))
        return routing._replace(weights_BE=weights_TE, selected_BE=weights_TE > 0)

    @torch.no_grad()
    def _nearest(self) -> Tensor:
        return torch.stack(
            [assignment(soft_EE) for soft_EE in sinkhorn(self.log_alpha_TEE, self.temperature, self.rounds)]
        )
