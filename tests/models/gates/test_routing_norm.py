"""The norm before gates: where it stands, what it is for, and that it folds into the projection.

Shapes: B rows, D routing inputs, E experts.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.export_graph.affine import Affine
from models.gates import DSelectKConfig, NoisyTopKConfig, build_gate
from models.network import Network
from models.ranker import Ranker
from tests.models.small import small_config, small_schema

WIDTH, EXPERTS = 64, 8


def positive_rows(seed: int) -> Tensor:
    """What a gate sees behind a ReLU: nothing below 0, so that all columns of a row push a logit the same way."""
    return torch.randn(256, WIDTH, generator=torch.Generator().manual_seed(seed)).relu()


def trained_on_rows_with_two_needs(*, normalise: bool) -> Tensor:
    """Which experts rows select [B, E], after training in which two kinds of rows gain by different experts."""
    torch.manual_seed(0)
    gate = build_gate(DSelectKConfig(k=1), EXPERTS, WIDTH)
    if normalise:
        gate.normalise_input()
    optimizer = torch.optim.Adam(gate.parameters(), lr=3e-3)
    value_2E = torch.randn(2, EXPERTS)
    for step in range(150):
        rows_BD = positive_rows(step)
        weights_BE, _, penalties = gate(rows_BD)
        gain = (weights_BE * value_2E[(rows_BD[:, 0] > rows_BD[:, 1]).long()]).sum(1).mean()
        loss = torch.stack(list(penalties.values())).sum() - gain
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return gate.eval()(positive_rows(1000)).selected_BE


def test_a_normed_gate_routes_by_row_where_one_without_settles_on_the_same_expert_for_all() -> None:
    raw_BE, normed_BE = (trained_on_rows_with_two_needs(normalise=normalise) for normalise in (False, True))
    assert float(raw_BE.double().mean(0).max()) > 0.99
    assert float(normed_BE.double().mean(0).max()) < 0.8


@pytest.mark.parametrize("config", [DSelectKConfig(), NoisyTopKConfig()])
def test_the_norm_folds_into_the_projection(config: Any) -> None:
    gate = build_gate(config, EXPERTS, WIDTH)
    gate.normalise_input()
    for step in range(3):
        gate(positive_rows(step) * 3 + 1)
    gate.eval()
    assert gate.projection is not None
    folded = Affine.of(gate.projection.weight, gate.projection.bias).after(gate.norm)
    rows_BD = positive_rows(7)
    expected = rows_BD.double() @ folded.weight_HD.T + folded.bias_H
    torch.testing.assert_close(gate.logits(rows_BD).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "normed"),
    [
        ({}, False),  # the gates read the input matrix, which is normed as a whole
        ({"input_norm": "none"}, True),
        ({"bottom": (16,)}, True),
        ({"bottom": (16,), "routing_norm": "none"}, False),
        ({"bottom": (16,), "routing": "user"}, False),
        ({"bottom": (16,), "routing": "user", "input_norm": "none"}, True),
        ({"bottom": (16,), "routing": "static"}, False),
        ({"bottom": (16,), "gate": {"name": "hash", "feature": "user"}}, False),
        ({"interaction": {"name": "dcn_v2"}}, True),
    ],
)
def test_gates_have_a_norm_where_nothing_else_norms_what_they_read(changes: dict[str, Any], normed: bool) -> None:  # noqa: FBT001 a parameter of the test
    network: Network = Ranker(small_schema(), small_config(**changes)).network
    assert {isinstance(gate.norm, nn.BatchNorm1d) for gate in network.typed_gates} == {normed}


def test_later_levels_have_a_norm_also_where_the_first_has_none() -> None:
    network = Ranker(small_schema(), small_config(architecture={"name": "ple", "levels": 2})).network
    first, second = network.typed_levels
    assert not any(isinstance(gate.norm, nn.BatchNorm1d) for gate in first.typed_gates)
    assert all(isinstance(gate.norm, nn.BatchNorm1d) for gate in second.typed_gates)
