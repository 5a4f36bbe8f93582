"""Logits of several gates over one input as one product, which a card computes faster than one product each.

Shape legend: B rows, D columns, L logits of a gate.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.gates.gate import Gate, full_precision


def joint_logits(gates: Sequence[Gate], routing_BD: Tensor) -> list[Tensor] | None:
    """What `Gate.logits` gives for each gate [B, L]; None where one of them has its own way to its logits.

    Example:
        >>> from models.gates import SoftmaxConfig
        >>> gates = [SoftmaxConfig().build(experts=4, routing_width=3) for _ in range(2)]
        >>> [each.shape for each in joint_logits(gates, torch.ones(5, 3))]
        [torch.Size([5, 4]), torch.Size([5, 4])]
    """
    projections = [gate.projection for gate in gates if gate.projection is not None and _is_plain(gate)]
    if len(projections) < len(gates):
        return None
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    with full_precision(routing_BD.device.type):
        logits = functional.linear(routing_BD.to(weight.dtype), weight, bias)
    return list(logits.split([projection.out_features for projection in projections], dim=1))


def _is_plain(gate: Gate) -> bool:
    return isinstance(gate.norm, nn.Identity) and type(gate).project is Gate.project
