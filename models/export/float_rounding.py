"""What rounding alone does to a model: how far it moves an answer, and where it changes what a gate selects.

A graph adds the same numbers as the eager model in another order, so it may differ by about as much as the eager model
in float32 differs from itself in float64. That depends on the row: where inputs lie far outside of what batch norm
saw, the values inside the network are large and lose more digits. The error of one row is a single draw of a random
quantity, so several are taken, at inputs which differ by a rounding error.

Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms", sections 1.5 and 1.6: the forward error is
bounded by the condition number times the backward error; both are estimated here by moving the inputs.

Shape legend: B rows, D columns of the input matrix, T tasks, E experts, L logits of a gate.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.gates import Routing
from models.network import Network
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

_TRIALS = 8
_EPSILON = float(torch.finfo(torch.float32).eps)
_TIE_NOISE = 2e-5
_TIE_TRIALS = 32
"""A row exactly between two experts looks decided once in 2**31."""


class Rounding(NamedTuple):
    """Of some rows: the largest float32 error seen of each answer, and which rows select other experts by rounding.

    `error_BT` is that of a value v over max(1, |v|).
    """

    error_BT: NDArray[np.float64]
    tied_B: NDArray[np.bool_]


class _Answer(NamedTuple):
    values_BT: Tensor
    selected_BE: Tensor


@torch.no_grad()
def measure_rounding(ranker: Ranker, inputs: TensorInputs, rows: NDArray[np.intp]) -> Rounding:
    """Measure on these rows of the inputs; the result has as many rows as `rows`.

    Each trial moves the columns of the input matrix by at most one unit in the last place. It counts what float32 loses
    there against float64, and what the move itself changes, because the columns are float32 sums, too.
    """
    paired = inputs.paired()
    columns_BD, ids_B = ranker.columns(paired)[rows], ranker.routing_ids(paired)
    ids_B = None if ids_B is None else ids_B[rows]
    # The copy keeps the network's hooks: a model whose gates are shifted is measured as it stands.
    exact = copy.deepcopy(ranker.network).double()

    def answer(network: Network, x_BD: Tensor) -> _Answer:
        output = network(x_BD, ids_B)
        return _Answer(ranker.predictions(output.outputs_BT).double(), _selected(output.routings, len(rows)))

    reference = answer(exact, columns_BD)
    error_BT = torch.zeros_like(reference.values_BT)
    tied_B = _changed_by_noise(ranker, columns_BD, ids_B)
    generator = torch.Generator().manual_seed(0)
    for trial in range(_TRIALS + 1):
        move_BD = torch.empty_like(columns_BD).uniform_(-_EPSILON, _EPSILON, generator=generator)
        moved_BD = columns_BD * (1.0 + move_BD) if trial else columns_BD
        rounded, moved = answer(ranker.network, moved_BD), answer(exact, moved_BD)
        lost_BT = (rounded.values_BT - moved.values_BT).abs() + (moved.values_BT - reference.values_BT).abs()
        error_BT = torch.maximum(error_BT, lost_BT)
        tied_B |= (rounded.selected_BE != reference.selected_BE).any(dim=1)
        tied_B |= (moved.selected_BE != reference.selected_BE).any(dim=1)
    return Rounding((error_BT / reference.values_BT.abs().clamp(min=1.0)).numpy(), tied_B.numpy())


def _changed_by_noise(ranker: Ranker, columns_BD: Tensor, ids_B: Tensor | None) -> Tensor:
    # Noise of the size of rounding errors in the routing logits, which may be sums of many more terms than the columns.
    hooks = [gate.projection.register_forward_hook(_noise) for gate in ranker.network.typed_gates if gate.projection]
    rows = len(columns_BD)
    try:
        trials = [
            _selected(ranker.network(columns_BD, ids_B).routings, rows) for _ in range(_TIE_TRIALS if hooks else 1)
        ]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([(trial != trials[0]).any(dim=1) for trial in trials]).any(dim=0)


def _noise(module: torch.nn.Module, inputs: object, logits_BL: Tensor) -> Tensor:
    del module, inputs
    return logits_BL + torch.empty_like(logits_BL).uniform_(-_TIE_NOISE, _TIE_NOISE)


def _selected(routings: tuple[Routing, ...], rows: int) -> Tensor:
    if not routings:
        return torch.zeros(rows, 1, dtype=torch.bool)
    return torch.cat([routing.selected_BE.expand(rows, -1) for routing in routings], dim=1)
