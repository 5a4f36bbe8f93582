"""Learning a permutation of the experts: soft while learned, hard in evaluation, an index vector once frozen.

Shapes: B rows, E experts.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gates import PermutationConfig, TopKConfig
from models.gates.permutation import assignment, matrix_entropy, sinkhorn
from models.gates.top_k import TopKGate

WIDTH, EXPERTS = 6, 8


def gate(steps: int = 10, entropy: float = 0.1) -> TopKGate:
    torch.manual_seed(0)
    return TopKGate(TopKConfig(k=2, permutation=PermutationConfig(steps=steps, entropy=entropy)), EXPERTS, WIDTH)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 9))
def test_sinkhorn_makes_a_doubly_stochastic_matrix(seed: int, size: int) -> None:
    torch.manual_seed(seed)
    soft = sinkhorn(torch.randn(size, size, dtype=torch.float64), 1.0, 200)
    torch.testing.assert_close(soft.sum(0), torch.ones(size, dtype=torch.float64))
    torch.testing.assert_close(soft.sum(1), torch.ones(size, dtype=torch.float64))


def test_the_assignment_inverts_a_permutation_matrix_and_its_entropy_is_none() -> None:
    order = torch.tensor([2, 0, 3, 1])
    matrix = torch.eye(4)[:, order]
    assert torch.equal(assignment(matrix), order)
    assert matrix_entropy(matrix).item() == pytest.approx(0, abs=1e-4)
    assert float(matrix_entropy(torch.full((4, 4), 0.25))) > 1


def test_training_mixes_evaluation_permutes_and_freezing_keeps_an_index() -> None:
    learning, x = gate(), torch.randn(5, WIDTH)
    soft = learning(x)
    assert learning.max_selected == EXPERTS
    torch.testing.assert_close(soft.weights_BE.sum(-1), torch.ones(5))
    assert int(learning.eval()(x).selected_BE.sum(-1).max()) == 2
    learning.train().step(10)
    assert learning.permutation is not None
    assert learning.permutation.frozen
    frozen = learning(x)
    assert learning.max_selected == 2
    assert frozen.selected_BE.sum(-1).tolist() == [2] * 5
    plain = TopKGate(TopKConfig(k=2), EXPERTS, WIDTH)
    plain.load_state_dict(learning.state_dict(), strict=False)
    assert torch.equal(frozen.weights_BE, plain(x).weights_BE[:, learning.permutation.index_E])


def test_a_frozen_index_survives_later_moves_of_the_matrix_and_a_restart() -> None:
    frozen = gate()
    frozen.step(10)
    assert frozen.permutation is not None
    index_E = frozen.permutation.index_E.clone()
    with torch.no_grad():
        frozen.permutation.log_alpha_EE.neg_()
    frozen.step(11)
    assert torch.equal(frozen.permutation.index_E, index_E)
    restarted = gate()
    restarted.load_state_dict(frozen.state_dict())
    restarted.step(12)
    assert restarted.permutation is not None
    assert torch.equal(restarted.permutation.index_E, index_E)


def test_a_frozen_matrix_still_has_a_gradient_of_zero_for_data_parallel_training() -> None:
    frozen = gate()
    frozen.step(10)
    routing = frozen(torch.randn(5, WIDTH))
    (routing.weights_BE.square().sum() + routing.penalties["permutation"]).backward()
    assert all(parameter.grad is not None for parameter in frozen.parameters())
    assert frozen.get_parameter("permutation.log_alpha_EE").grad.abs().max().item() == 0  # type: ignore[union-attr]


def test_local_search_finds_the_permutation_that_the_task_asks_for() -> None:
    torch.manual_seed(0)
    learning = gate(steps=400, entropy=0.001)
    assert learning.permutation is not None
    learning.permutation.config = PermutationConfig(
        steps=400, first_log10_temperature=0.0, last_log10_temperature=-2.0, first_rounds=20, last_rounds=40
    )
    wanted_E = torch.randperm(EXPERTS)
    optimiser = torch.optim.Adam([learning.permutation.log_alpha_EE], lr=0.05)
    plain = TopKGate(TopKConfig(k=2), EXPERTS, WIDTH)
    plain.load_state_dict(learning.state_dict(), strict=False)
    torch.nn.init.normal_(plain.get_parameter("projection.weight"))
    learning.load_state_dict(plain.state_dict(), strict=False)
    for step in range(400):
        learning.step(step)
        x = torch.randn(64, WIDTH)
        loss = (learning(x).weights_BE - plain(x).weights_BE[:, wanted_E]).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learning.step(400)
    assert torch.equal(learning.permutation.index_E, wanted_E)
