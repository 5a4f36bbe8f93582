"""What each gate's paper promises beyond the common interface.

Shapes: B rows, E experts, L routing logits.
"""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.gates import (
    CometConfig,
    DenseToSparseConfig,
    DSelectKConfig,
    GumbelConfig,
    NoisyTopKConfig,
    Schedule,
    TopKConfig,
    TopPConfig,
)
from models.gates.choice import Choice, drop_experts, softmax_of_rows
from models.gates.comet import CometGate
from models.gates.dense_to_sparse import DenseToSparseGate
from models.gates.dselect_k import DSelectKGate, smooth_step
from models.gates.gumbel import GumbelGate
from models.gates.top_k import NoisyTopKGate, TopKGate
from models.gates.top_p import TopPGate

WIDTH = 6
SMALL = settings(max_examples=25, deadline=None)


@SMALL
@given(gamma=st.sampled_from([0.01, 0.1, 1.0, 10.0]), seed=st.integers(0, 1000))
def test_the_smooth_step_is_exact_beyond_its_ends_and_never_leaves_them(gamma: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = gamma * torch.cat([torch.rand(500) - 0.5, torch.tensor([-0.5, 0.5, -1e30, 1e30, -torch.inf, torch.inf])])
    x.requires_grad_()
    y = smooth_step(x, gamma)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert bool(((y >= 0) & (y <= 1)).all())
    assert y[-6:].tolist() == [0, 1, 0, 1, 0, 1]
    assert gradient[-6:].tolist() == [0] * 6
    torch.testing.assert_close(y + smooth_step(-x, gamma), torch.ones_like(y))


@SMALL
@given(seed=st.integers(0, 1000), mask=st.integers(0, 7))
def test_flipping_bits_of_dselect_k_moves_its_weights_to_the_flipped_codes(seed: int, mask: int) -> None:
    torch.manual_seed(seed)
    gate = DSelectKGate(DSelectKConfig(k=2), 8, WIDTH).double().eval()
    logits_BL = torch.randn(5, gate.logit_width, dtype=torch.float64) * 0.3
    flipped_BL = logits_BL.clone()
    for bit in (bit for bit in range(3) if mask >> (2 - bit) & 1):
        flipped_BL[:, [bit, 3 + bit]] *= -1
    order_E = torch.arange(8) ^ mask
    torch.testing.assert_close(gate.route(flipped_BL).weights_BE, gate.route(logits_BL).weights_BE[:, order_E])


def test_a_saturated_static_dselect_k_is_one_hot_by_selector_and_says_so() -> None:
    gate = DSelectKGate(DSelectKConfig(k=2, gamma=1.0), 8, 0).eval()
    assert not gate.converged()
    assert gate.constant_1L is not None
    with torch.no_grad():
        # Codes 101 and 011, most significant bit first: experts 5 and 3; equal weights.
        gate.constant_1L.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 0.0, 0.0]]))
    assert gate.converged()
    assert torch.equal(gate.selector_distance(None), torch.zeros(1, 2))
    assert gate.route(None).weights_BE.tolist() == [[0, 0, 0, 0.5, 0, 0.5, 0, 0]]


def test_entropy_training_drives_static_dselect_k_to_k_experts() -> None:
    torch.manual_seed(0)
    gate = DSelectKGate(DSelectKConfig(k=2, entropy=1.0), 8, 0)
    optimiser = torch.optim.Adam(gate.parameters(), lr=0.05)
    target = torch.randn(8)
    for _ in range(200):
        routing = gate(None)
        loss = (routing.weights_BE * target).sum() + torch.stack(list(routing.penalties.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert gate.converged()
    assert int(gate(None).selected_BE.sum()) <= 2


def test_dselect_ks_mean_terms_do_not_depend_on_the_batch_size_and_its_sums_do() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, WIDTH)
    for reduction, factor in (("mean", 1), ("sum", 3)):
        torch.manual_seed(1)
        gate = DSelectKGate(DSelectKConfig.model_validate({"reduction": reduction}), 6, WIDTH)
        once, thrice = gate(x).penalties, gate(x.repeat(3, 1)).penalties
        for term in ("selector_entropy", "reachability"):
            torch.testing.assert_close(thrice[term], factor * once[term])


def test_dselect_k_warns_about_codes_of_no_expert(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        DSelectKGate(DSelectKConfig(), 8, WIDTH)
        assert not caplog.records
        DSelectKGate(DSelectKConfig(), 5, WIDTH)
    assert "3 codes of no expert" in caplog.text


def test_the_reachability_term_stays_finite_where_no_real_expert_is_reached() -> None:
    gate = DSelectKGate(DSelectKConfig(k=1), 5, 0)
    assert gate.constant_1L is not None
    with torch.no_grad():
        gate.constant_1L.copy_(torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    routing = gate(None)
    assert routing.weights_BE.tolist() == [[0] * 5]
    assert routing.penalties["reachability"].item() == pytest.approx(1000.0)


@pytest.mark.parametrize("experts", [2, 3, 5, 6, 7, 8, 13, 16])
def test_saturated_comet_trees_choose_at_most_k_of_any_number_of_experts(experts: int) -> None:
    torch.manual_seed(0)
    k = min(2, experts)
    gate = CometGate(CometConfig(k=k, gamma=0.5), experts, WIDTH).eval()
    logits_BL = torch.randn(200, gate.logit_width).sign()
    routing = gate.route(logits_BL)
    assert torch.equal(gate.selector_distance(logits_BL), torch.zeros(200, k))
    assert int(routing.selected_BE.sum(-1).max()) <= k
    assert int(routing.selected_BE.sum(0).min()) > 0
    torch.testing.assert_close(routing.weights_BE.sum(-1), torch.ones(200))


def test_comet_walks_its_heap_ordered_tree_to_the_leaves_from_left_to_right() -> None:
    gate = CometGate(CometConfig(k=1), 5, 0).eval()
    # Nodes 0..3 split; left is 1. The leaves from left to right are the nodes 7, 8, 4, 5, 6.
    for directions, expert in (("LLxL", 0), ("LLxR", 1), ("LRxx", 2), ("RxLx", 3), ("RxRx", 4)):
        splits = [{"L": 1.0, "R": -1.0, "x": 0.0}[direction] for direction in directions]
        assert gate.constant_1L is not None
        with torch.no_grad():
            gate.constant_1L.copy_(torch.tensor([[*splits, 0, 0, 0, 0, 0]]))
        routing = gate(None)
        assert routing.weights_BE.argmax().item() == expert
        assert int(routing.selected_BE.sum()) == 1


def test_top_k_keeps_exactly_k_also_of_equal_logits() -> None:
    routing = TopKGate(TopKConfig(k=3), 8, WIDTH).route(torch.zeros(4, 8))
    assert routing.selected_BE.sum(-1).tolist() == [3] * 4
    torch.testing.assert_close(routing.weights_BE.amax(-1), torch.full((4,), 1 / 3))


def test_null_experts_take_choices_and_a_row_keeps_its_best_real_one() -> None:
    gate = TopKGate(TopKConfig(k=2, null_experts=2), 3, WIDTH)
    logits_BX = torch.tensor([[3.0, 2.0, 1.0, 0.0, 0.0], [0.0, 3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 0.5, 3.0, 2.0]])
    routing = gate.route(logits_BX)
    assert routing.selected_BE.int().tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    torch.testing.assert_close(routing.weights_BE.sum(-1), torch.ones(3))


def test_noisy_top_k_explores_in_training_and_is_plain_top_k_in_evaluation() -> None:
    torch.manual_seed(0)
    gate = NoisyTopKGate(NoisyTopKConfig(k=2, load=1.0), 8, WIDTH)
    x = torch.randn(500, WIDTH)
    training = gate(x)
    assert bool(training.selected_BE.any(0).all())
    assert 0 < training.penalties["load"].item() < 0.1
    torch.nn.init.normal_(gate.get_parameter("projection.weight"))
    gate.eval()
    logits_BE = gate.logits(x)
    assert logits_BE.shape == (500, 8)
    expected = TopKGate(TopKConfig(k=2), 8, WIDTH).route(logits_BE)
    assert torch.equal(gate(x).weights_BE, expected.weights_BE)


def test_the_smooth_load_falls_as_the_load_evens_out() -> None:
    torch.manual_seed(0)
    gate = NoisyTopKGate(NoisyTopKConfig(k=1, load=1.0), 4, WIDTH)
    even, skewed = torch.zeros(400, 8), torch.zeros(400, 8)
    skewed[:, 0] = 5.0
    assert gate.route(even).penalties["load"].item() < 0.1 < gate.route(skewed).penalties["load"].item()


def test_gumbel_evaluation_is_a_fixed_mean_close_to_that_of_training() -> None:
    torch.manual_seed(0)
    gate = GumbelGate(GumbelConfig(samples=2000), 4, WIDTH)
    logits_BE = torch.randn(1, 4)
    trained_E = torch.stack([gate.route(logits_BE).weights_BE[0] for _ in range(2000)]).mean(0)
    gate.eval()
    torch.testing.assert_close(gate.route(logits_BE).weights_BE[0], trained_E, rtol=0, atol=0.03)
    assert torch.equal(gate.route(logits_BE).weights_BE, gate.route(logits_BE).weights_BE)


@pytest.mark.parametrize("temperature", [0.0, {"start": 1.0, "end": 0.0, "last_step": 9}])
def test_temperatures_that_reach_zero_are_refused(temperature: object) -> None:
    with pytest.raises(ValidationError, match="above 0 at every step"):
        GumbelConfig.model_validate({"temperature": temperature})


def test_gumbel_temperature_follows_its_schedule() -> None:
    torch.manual_seed(0)
    schedule = Schedule(shape="exponential", start=2.0, end=0.02, last_step=100)
    gate = GumbelGate(GumbelConfig(temperature=schedule, samples=0), 4, WIDTH).eval()
    logits_BE = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    gate.step(50)
    torch.testing.assert_close(gate.route(logits_BE).weights_BE, (logits_BE / 0.2).softmax(-1))


def test_dense_to_sparse_is_dense_before_its_switch_and_k_sparse_from_it_on() -> None:
    torch.manual_seed(0)
    schedule = Schedule(start=2.0, end=0.5, last_step=200)
    gate = DenseToSparseGate(DenseToSparseConfig(k=2, switch_step=100, temperature=schedule), 8, WIDTH)
    x = torch.randn(20, WIDTH)
    counts = {}
    for step in (0, 99, 100, 1000):
        gate.step(step)
        counts[step] = sorted(set(gate(x).selected_BE.sum(-1).tolist()))
    assert counts == {0: [8], 99: [8], 100: [2], 1000: [2]}
    assert gate.temperature == pytest.approx(1.25)


def test_dense_to_sparse_drops_weights_below_its_threshold_but_never_all() -> None:
    gate = DenseToSparseGate(DenseToSparseConfig(switch_step=9, threshold=0.3), 4, WIDTH).eval()
    routing = gate.route(torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]))
    assert routing.selected_BE.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]


def test_dense_to_sparse_has_no_default_switch() -> None:
    with pytest.raises(ValidationError, match="switch_step"):
        DenseToSparseConfig.model_validate({})


@SMALL
@given(seed=st.integers(0, 1000), p=st.floats(0.05, 1.0), k=st.integers(1, 8))
def test_top_p_selects_the_smallest_set_that_reaches_p_or_k(seed: int, p: float, k: int) -> None:
    torch.manual_seed(seed)
    gate = TopPGate(TopPConfig(p=p, k=k), 8, WIDTH)
    logits_BE = 2 * torch.randn(20, 8, dtype=torch.float64)
    selected_BE = gate.route(logits_BE).selected_BE
    for probability_E, selected_E in zip(logits_BE.softmax(-1), selected_BE, strict=True):
        count = int(selected_E.sum())
        ordered = probability_E.sort(descending=True).values
        assert set(probability_E[selected_E].tolist()) == set(ordered[:count].tolist())
        assert float(ordered[: count - 1].sum()) < p
        assert count == k or float(ordered[:count].sum()) >= p - 1e-9


def test_schedules_interpolate_and_hold_their_ends() -> None:
    schedule = Schedule(start=1.0, end=3.0, first_step=10, last_step=20)
    assert [schedule.at(step) for step in (0, 10, 15, 20, 99)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    gate = DSelectKGate(DSelectKConfig(entropy=schedule), 8, WIDTH)
    gate.step(15)
    assert gate.entropy == 2.0


@pytest.mark.parametrize(
    "wrong",
    [{"start": 1.0, "end": 0.0, "last_step": 9, "shape": "exponential"}, {"start": 1, "end": 0, "last_step": 0}],
)
def test_impossible_schedules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate(wrong)


def test_dropped_experts_leave_their_weight_to_the_row_s_others() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([[0.5, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]]).repeat(4000, 1)
    choice = drop_experts(Choice(weights, weights > 0, {}), 0.25)
    torch.testing.assert_close(choice.weights_BE.sum(1), torch.ones(8000))
    assert not choice.weights_BE[~choice.selected_BE].any()
    assert bool(choice.selected_BE[1::2, 0].all())
    # Of three experts one is dropped with 1/4, except where all three are, with 1/64.
    assert float((~choice.selected_BE[::2, 0]).float().mean()) == pytest.approx(1 / 4 - 1 / 64, abs=0.02)


def test_expert_dropout_is_for_training_only() -> None:
    gate = TopKConfig(k=2, expert_dropout=0.5).build(4, 3)
    routing = torch.randn(200, 3)
    assert float(gate.train()(routing).selected_BE.sum(1).float().mean()) < 1.9
    assert bool((gate.eval()(routing).selected_BE.sum(1) == 2).all())


def test_the_softmax_of_training_is_that_of_rows_with_its_gradient() -> None:
    logits = torch.randn(300, 8).index_fill(1, torch.tensor([5]), -torch.inf)
    trained, plain = (logits.clone().requires_grad_() for _ in range(2))
    weights, expected = softmax_of_rows(trained), plain.softmax(-1)
    torch.testing.assert_close(weights, expected)
    pull = torch.randn(300, 8)
    torch.testing.assert_close(
        torch.autograd.grad((weights * pull).sum(), trained), torch.autograd.grad((expected * pull).sum(), plain)
    )
    assert torch.equal(softmax_of_rows(logits), logits.softmax(-1))
