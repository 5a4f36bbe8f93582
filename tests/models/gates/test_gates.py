"""What holds for every gate: weights, selected set, independence of rows, saturation, loading, refusals.

Shapes: B rows, D routing inputs, E experts, L routing logits.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from contract.errors import ConfigError
from models.gates import (
    CometConfig,
    DenseToSparseConfig,
    DSelectKConfig,
    Gate,
    GateConfig,
    GateSettings,
    GumbelConfig,
    HashConfig,
    NoisyTopKConfig,
    PermutationConfig,
    Regularisers,
    Routing,
    SoftmaxConfig,
    TopAnyConfig,
    TopKConfig,
    TopPConfig,
    build_gate,
)

WIDTH = 6
CONFIGS: dict[str, Callable[[int], GateSettings]] = {
    "softmax": lambda _: SoftmaxConfig(),
    "top_k": lambda k: TopKConfig(k=k),
    "top_k with null experts": lambda k: TopKConfig(k=k, null_experts=3),
    "noisy_top_k": lambda k: NoisyTopKConfig(k=k, load=0.1),
    "hash": lambda _: HashConfig(feature="user"),
    "balanced hash": lambda _: HashConfig(feature="user", assignment="balanced", rows=50),
    "dselect_k": lambda k: DSelectKConfig(k=k),
    "comet": lambda k: CometConfig(k=k),
    "gumbel": lambda _: GumbelConfig(),
    "dense_to_sparse": lambda k: DenseToSparseConfig(k=k, switch_step=10, threshold=0.1),
    "switched dense_to_sparse": lambda k: DenseToSparseConfig(k=k, switch_step=1),
    "normalised dense_to_sparse": lambda k: DenseToSparseConfig(k=k, switch_step=1, normalise=True),
    "top_any": lambda _: TopAnyConfig(),
    "top_p": lambda _: TopPConfig(p=0.6),
    "top_p with null experts": lambda k: TopPConfig(p=0.6, k=k, null_experts=2),
}
EVERY_GATE = pytest.mark.parametrize("name", CONFIGS)
SMALL = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**31)
SCALES = st.sampled_from([0.0, 0.01, 1.0, 30.0, 1e6])
"""Of the routing logits: from all equal to all saturated."""


def make(name: str, seed: int, experts: int, scale: float = 1.0, width: int = WIDTH, k: int = 2) -> Gate:
    """A gate at training step 1 with random logits of a given size, in float64."""
    torch.manual_seed(seed)
    gate = build_gate(CONFIGS[name](min(k, experts)), experts, width).double()  # type: ignore[arg-type]
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    gate.step(1)
    return gate


def inputs(seed: int, rows: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    routing_BD = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
    return routing_BD, torch.randint(0, 100, (rows,), generator=generator)


def sums_to_one(name: str, experts: int) -> bool:
    return name != "switched dense_to_sparse" and not (
        (name == "dselect_k" and experts & (experts - 1)) or name == "dense_to_sparse"
    )


@EVERY_GATE
@SMALL
@given(seed=SEEDS, scale=SCALES, experts=st.integers(1, 9), training=st.booleans(), static=st.booleans())
def test_weights_are_a_sparse_mixture_and_zero_outside_the_selected_set(
    name: str, *, seed: int, scale: float, experts: int, training: bool, static: bool
) -> None:
    gate = make(name, seed, experts, scale, 0 if static else WIDTH).train(training)
    weights_BE, selected_BE, penalties = gate(*inputs(seed))
    total_B = weights_BE.sum(-1)
    assert weights_BE.shape == selected_BE.shape == ((1 if gate.static else 9), experts)
    assert selected_BE.dtype == torch.bool
    assert bool((weights_BE >= 0).all())
    assert bool((weights_BE[~selected_BE] == 0).all())
    assert int(selected_BE.sum(-1).max()) <= gate.max_selected
    assert bool((total_B <= 1 + 1e-9).all())
    if sums_to_one(name, experts):
        torch.testing.assert_close(total_B, torch.ones_like(total_B))
    assert all(x.ndim == 0 and bool(x.isfinite()) for x in penalties.values())
    assert training or not penalties


@EVERY_GATE
@SMALL
@given(seed=SEEDS, scale=SCALES, experts=st.integers(2, 9))
def test_a_rows_weights_do_not_depend_on_its_neighbours(name: str, seed: int, scale: float, experts: int) -> None:
    gate = make(name, seed, experts, scale).eval()
    (routing_BD, ids_B), (other_BD, other_B) = inputs(seed), inputs(seed + 1)
    other_BD[4], other_B[4] = routing_BD[4], ids_B[4]
    among, elsewhere = gate(routing_BD, ids_B), gate(other_BD, other_B)
    torch.testing.assert_close(among.weights_BE[4], elsewhere.weights_BE[4], rtol=0, atol=1e-12)
    assert torch.equal(among.selected_BE[4], elsewhere.selected_BE[4])


@EVERY_GATE
@SMALL
@given(seed=SEEDS, scale=SCALES, experts=st.integers(2, 9), static=st.booleans())
def test_gradients_are_finite_also_at_saturation(
    name: str, *, seed: int, scale: float, experts: int, static: bool
) -> None:
    gate = make(name, seed, experts, scale, 0 if static else WIDTH).float()
    gate.regularisers = Regularisers(importance=0.1, load_balance=0.1, z_loss=0.1, entropy=0.1)
    routing_BD, ids_B = inputs(seed)
    weights_BE, _, penalties = gate(routing_BD.float(), ids_B)
    if parameters := list(gate.parameters()):
        value = (weights_BE * torch.randn_like(weights_BE)).sum() + torch.stack(list(penalties.values())).sum()
        found = torch.autograd.grad(value, parameters)
        assert all(bool(gradient.isfinite().all()) for gradient in found)


@pytest.mark.parametrize(
    "name",
    ["softmax", "top_k", "dense_to_sparse", "switched dense_to_sparse", "normalised dense_to_sparse", "top_p"],
)
@SMALL
@given(seed=SEEDS, experts=st.integers(2, 9))
def test_permuted_logits_permute_the_weights(name: str, seed: int, experts: int) -> None:
    gate = make(name, seed, experts).eval()
    logits_BE, order_E = torch.randn(9, experts, dtype=torch.float64), torch.randperm(experts)
    straight, permuted = gate.route(logits_BE), gate.route(logits_BE[:, order_E])
    torch.testing.assert_close(permuted.weights_BE, straight.weights_BE[:, order_E])
    assert torch.equal(permuted.selected_BE, straight.selected_BE[:, order_E])


@EVERY_GATE
def test_a_frozen_permutation_permutes_the_weights_and_nothing_else(name: str) -> None:
    experts = 8
    plain = make(name, 0, experts).eval()
    config = CONFIGS[name](2).model_copy(update={"permutation": PermutationConfig(steps=1)})
    torch.manual_seed(5)
    permuted = build_gate(config, experts, WIDTH).double()  # type: ignore[arg-type]
    permuted.load_state_dict(plain.state_dict(), strict=False)
    permuted.eval().step(1)
    assert permuted.permutation is not None
    expected, actual = plain(*inputs(1)), permuted(*inputs(1))
    index_E = permuted.permutation.index_E
    assert sorted(index_E.tolist()) == list(range(experts))
    assert permuted.max_selected == plain.max_selected
    assert torch.equal(actual.weights_BE, expected.weights_BE[:, index_E])
    assert torch.equal(actual.selected_BE, expected.selected_BE[:, index_E])


@EVERY_GATE
def test_logits_and_route_compose_to_the_forward_pass(name: str) -> None:
    gate = make(name, 0, 8).eval()
    routing_BD, ids_B = inputs(0)
    logits_BL = None if gate.needs_ids else gate.logits(routing_BD)
    assert (gate.projection is None) == gate.needs_ids
    if logits_BL is not None and gate.projection is not None:
        assert logits_BL.shape == (9, gate.logit_width)
        first, last = gate.projection.weight[:, :2], gate.projection.weight[:, 2:]
        split_BL = routing_BD[:, :2] @ first.T + routing_BD[:, 2:] @ last.T + gate.projection.bias
        torch.testing.assert_close(logits_BL, split_BL)
    assert equal(gate.route(logits_BL, ids_B), gate(routing_BD, ids_B))


@EVERY_GATE
def test_a_gate_answers_after_loading_as_when_it_was_saved(name: str) -> None:
    gate, twin = make(name, 0, 8), make(name, 1, 8)
    gate.step(40)
    twin.eval().load_state_dict(gate.state_dict())
    assert equal(twin(*inputs(0)), gate.eval()(*inputs(0)))


@EVERY_GATE
def test_bfloat16_autocast_does_not_touch_the_router(name: str) -> None:
    gate = make(name, 0, 8).float().eval()
    routing_BD, ids_B = inputs(0)
    expected = gate(routing_BD.float(), ids_B)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = gate(routing_BD.float(), ids_B)
    assert equal(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EVERY_GATE
def test_a_gate_answers_on_cuda_as_on_the_cpu(name: str) -> None:
    gate = make(name, 0, 8).eval()
    routing_BD, ids_B = inputs(0)
    expected = gate(routing_BD, ids_B)
    actual = gate.cuda()(routing_BD.cuda(), ids_B.cuda())
    torch.testing.assert_close(actual.weights_BE.cpu(), expected.weights_BE)
    assert torch.equal(actual.selected_BE.cpu(), expected.selected_BE)


@EVERY_GATE
def test_a_configuration_survives_json(name: str) -> None:
    config = CONFIGS[name](2)
    assert TypeAdapter(GateConfig).validate_json(config.model_dump_json()) == config


def test_unknown_gates_and_options_are_refused() -> None:
    adapter: TypeAdapter[GateConfig] = TypeAdapter(GateConfig)
    with pytest.raises(ValidationError, match="expert_choice"):
        adapter.validate_python({"name": "expert_choice"})
    with pytest.raises(ValidationError, match="temperature"):
        adapter.validate_python({"name": "top_k", "temperature": 1.0})


@pytest.mark.parametrize("name", ["top_k", "noisy_top_k", "dselect_k", "comet", "dense_to_sparse"])
def test_more_choices_than_experts_are_refused_with_the_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match=r"gate\.k is 5, but there are 4 experts"):
        build_gate(CONFIGS[name](5), 4, WIDTH)  # type: ignore[arg-type]


def test_a_gate_says_which_input_it_misses() -> None:
    with pytest.raises(TypeError, match="SoftmaxGate needs a routing input"):
        make("softmax", 0, 4)(None)
    with pytest.raises(TypeError, match="HashGate needs ids"):
        make("hash", 0, 4)(torch.zeros(3, WIDTH))


def equal(one: Routing, other: Routing) -> bool:
    return torch.equal(one.weights_BE, other.weights_BE) and torch.equal(one.selected_BE, other.selected_BE)
