"""Architectures, interactions, chains and routing inputs: each against its equation, and refused where it has none."""

from typing import Any

import pytest
import torch
from torch import Tensor

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.architectures import HoMEConfig, MMoEConfig, PlanRequest, PLEConfig
from models.diagnostics.expert_health import union
from models.gates.self_gate import SelfGateConfig
from models.heads.chains import Chain, product_logit
from models.input_layout import TableDims, feature_columns
from models.interactions.autoint import AutoIntConfig
from models.interactions.cross import Cross
from models.layers.feature_gate import FeatureGate
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}


def logits(ranker: Ranker, rows: int, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return ranker(TensorInputs.from_numpy(inputs(SCHEMA, rows, rows, seed=seed))).logits_BT


@pytest.mark.parametrize("name", ["shared_bottom", "mmoe", "cgc", "ple", "home"])
def test_every_architecture_answers_one_row_as_it_does_among_others(name: str) -> None:
    ranker = lively_ranker(SCHEMA, small_config(architecture={"name": name}))
    given = TensorInputs.from_numpy(inputs(SCHEMA, 1, 1))
    with torch.no_grad():
        alone = ranker(given).logits_BT
        twice = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 1, 1))).logits_BT
    assert alone.shape == (1, 2)
    torch.testing.assert_close(alone, twice)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_ple_has_any_number_of_levels_and_trains_with_one_row(levels: int) -> None:
    options = {"architecture": {"name": "ple", "levels": levels}, "norm": "layer", "input_norm": "none"}
    options |= {"routing_norm": "none"}
    ranker = Ranker(SCHEMA, small_config(**options, gate=TOP_K)).train()
    ranker(TensorInputs.from_numpy(inputs(SCHEMA, 1, 1))).logits_BT.sum().backward()
    assert len(ranker.network.typed_levels) == levels
    assert len(ranker.network.typed_gates) == 2 * levels + (levels - 1)


@pytest.mark.parametrize("gate", [TOP_K, {"name": "top_p", "p": 0.9, "k": 3}, {"name": "hash", "feature": "item"}])
def test_no_row_needs_more_experts_than_the_bound_on_the_union(gate: dict[str, Any]) -> None:
    options: dict[str, Any] = {"architecture": {"name": "mmoe", "private_experts": 1}, "gate_scope": "shared"}
    k = {"top_k": 2, "top_p": 3, "hash": 1}[gate["name"]]
    ranker = lively_ranker(SCHEMA, small_config(**options, gate=gate, experts=7, max_union=k + 2))
    with torch.no_grad():
        routings = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 200, 200))).routings
    needed_B = union(ranker.network.plan, routings, 200).sum(1)
    assert int(needed_B.max()) == k + 2
    with pytest.raises(ConfigError, match=f"may select {k + 2} experts"):
        Ranker(SCHEMA, small_config(**options, gate=gate, experts=7, max_union=k + 1))


def test_a_ple_gate_weighs_its_own_and_the_shared_experts_only() -> None:
    plan = PLEConfig(levels=2, task_experts=2).plan(PlanRequest(("a", "b"), 3, shared_gate=False))
    first, second = plan.levels
    assert [first.experts_of(gate) for gate in first.gates] == [[0, 1, 4, 5, 6], [2, 3, 4, 5, 6], list(range(7))]
    assert [gate.reads for gate in second.gates] == [(0,), (1,)]
    assert [each.reads for each in second.sets] == [(0,), (1,), (2,)]
    assert plan.owners()[:7] == [(0,), (0,), (1,), (1,), (0, 1), (0, 1), (0, 1)]


def test_home_masks_experts_by_group_and_task() -> None:
    config = HoMEConfig(groups={"watch": ("a", "c"), "act": ("b",)})
    meta, task = config.plan(PlanRequest(("a", "b", "c"), 1, shared_gate=False)).levels
    assert [meta.experts_of(gate) for gate in meta.gates[:3]] == [[0, 2], [1, 2], [0, 1, 2]]
    assert [task.experts_of(gate) for gate in task.gates[:3]] == [[0, 3, 5], [1, 4, 5], [2, 3, 5]]
    assert [each.reads for each in task.sets] == [(0,), (1,), (0,), (0,), (1,), (2,)]
    assert meta.streams[0] == (0, 3)


@pytest.mark.parametrize("groups", [{"x": ("a",)}, {"x": ("a", "b"), "y": ("b",)}, {"x": ("a", "b", "z")}])
def test_home_refuses_groups_that_are_no_partition_of_the_tasks(groups: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="each of these must stand in exactly one group: a, b"):
        HoMEConfig(groups=groups).plan(PlanRequest(("a", "b"), 1, shared_gate=False))


def test_private_experts_join_the_shared_selection_and_bound_the_union() -> None:
    plan = MMoEConfig(private_experts=1).plan(PlanRequest(("a", "b"), 4, shared_gate=True))
    assert plan.levels[0].streams == ((0, 1), (0, 2))
    options: dict[str, Any] = {"architecture": {"name": "mmoe", "private_experts": 1}, "gate_scope": "shared"}
    Ranker(SCHEMA, small_config(**options, gate=TOP_K, max_union=4))
    with pytest.raises(ConfigError, match=r"max_union is 3, but these gates may select 4 experts for one row"):
        Ranker(SCHEMA, small_config(**options, gate=TOP_K, max_union=3))
    with pytest.raises(ConfigError, match="may select 6 experts"):
        Ranker(SCHEMA, small_config(**options, max_union=4))


@pytest.mark.parametrize(("routing", "part"), [("user", 0), ("context", 0)])
def test_a_gate_of_user_or_context_features_looks_at_nothing_else(routing: str, part: int) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}, routing=routing))
    given = TensorInputs.from_numpy(inputs(SCHEMA, 1, 6))
    with torch.no_grad():
        weights = ranker(given).routings[0].weights_BE
    torch.testing.assert_close(weights, weights[:1].expand(6, -1))
    assert given[part].rows == 1


def test_routing_by_a_side_without_features_is_refused() -> None:
    items = small_schema(features=tuple(f for f in SCHEMA.features if f.side == "item"))
    with pytest.raises(ConfigError, match="no feature has the side user"):
        Ranker(items, small_config(routing="user"))


def test_a_cross_layer_multiplies_with_the_input() -> None:
    cross = Cross(3, layers=1, rank=0)
    x = torch.randn(4, 3)
    layer = cross.maps[0]
    torch.testing.assert_close(cross(x), x * layer(x) + x)
    assert sum(p.numel() for p in Cross(10, layers=1, rank=2).parameters()) == 10 * 2 + 2 * 10 + 10


def test_autoint_keeps_the_input_and_adds_a_vector_a_feature() -> None:
    features = feature_columns(SCHEMA, TableDims(8))
    config = AutoIntConfig(layers=2, heads=2, head_width=3)
    module = config.build(features)
    assert module is not None
    x = torch.randn(5, sum(len(feature.columns) for feature in features))
    answer = module(x)
    assert answer.shape == (5, config.width(features)) == (5, x.shape[1] + 9 * 6)
    torch.testing.assert_close(answer[:, : x.shape[1]], x)


def test_columns_of_features_cover_the_input_matrix_once() -> None:
    features = feature_columns(SCHEMA, TableDims(8))
    columns = sorted(column for feature in features for column in feature.columns)
    assert columns == list(range(Ranker(SCHEMA, small_config()).width))
    assert {f.spec.name: len(f.columns) for f in features}["price"] == 5


def test_a_feature_gate_of_zero_logits_changes_nothing() -> None:
    gate = FeatureGate(6, rank=2, gates=3)
    torch.nn.init.zeros_(gate.up_GRD)
    x = torch.randn(4, 6)
    torch.testing.assert_close(gate(x), x)


def test_a_self_gate_is_a_sigmoid_of_one_expert_and_a_softmax_of_several() -> None:
    one, three = SelfGateConfig().build(1, 4).eval(), SelfGateConfig().build(3, 4).eval()
    x = torch.randn(5, 4)
    torch.testing.assert_close(one(x).weights_BE, one.logits(x).sigmoid())
    torch.testing.assert_close(three(x).weights_BE.sum(1), torch.ones(5))


CLICK = TaskSpec(name="click", kind="binary", base_rate=0.2)
BUY = TaskSpec(name="buy", kind="binary", base_rate=0.05)
STARS = TaskSpec(name="stars", kind="regression")


def test_a_chained_task_answers_with_the_product_of_probabilities() -> None:
    a, b = torch.tensor([-3.0, 0.5, 80.0, -90.0]), torch.tensor([2.0, -0.5, 90.0, 3.0])
    joint = product_logit(a, b)
    torch.testing.assert_close(joint.sigmoid(), a.sigmoid() * b.sigmoid())
    assert torch.isfinite(joint).all()
    chain = Chain((BUY, CLICK), {"buy": "click"})
    torch.testing.assert_close(chain([a, b])[0], joint)
    torch.testing.assert_close(torch.tensor(chain.starting_points()).sigmoid(), torch.tensor([0.25, 0.2]))


@pytest.mark.parametrize(
    ("chains", "said"),
    [
        ({"buy": "click", "click": "buy"}, "circle"),
        ({"buy": "view"}, "'view'; the tasks are: click, buy, stars"),
        ({"buy": "stars"}, "stars, a regression task"),
    ],
)
def test_chains_that_make_no_sense_are_refused(chains: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Chain((CLICK, BUY, STARS), chains)


def test_a_residual_layer_adds_its_input_where_widths_are_equal() -> None:
    ranker = lively_ranker(SCHEMA, small_config(expert_widths=(8, 8), residual=True, bottom=(8, 8, 4)))
    blocks = [module for module in ranker.modules() if hasattr(module, "residual")]
    assert [block.residual for block in blocks][:3] == [False, True, False]
    assert logits(ranker, 3).shape == (3, 2)
