"""Several members in one model: each a network of its own, taught by its own loss, answering together."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.architectures import ArchitecturePlan, ExpertSet, GatePlan, LevelPlan, in_members
from models.export import export
from models.export.calibration import calibrate
from models.losses.total_loss import RankingLoss
from models.losses.within_user import WithinUserConfig
from models.ranker import Ranker
from models.ranker_tensors import RankerOutput, TensorInputs
from tests.models.small import TASKS, inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}
SHARED = {"name": "mmoe", "shared_experts": 1}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mmoe": {"gate": TOP_K},
    "mmoe behind shared layers": {"gate": TOP_K, "bottom": (12, 6)},
    "shared experts": {"gate": TOP_K, "architecture": SHARED, "gate_scope": "shared", "bottom": (12,)},
    "shared experts alone": {"gate": TOP_K, "architecture": SHARED, "gate_scope": "shared"},
    "private experts": {"gate": TOP_K, "architecture": {"name": "mmoe", "private_experts": 1, "shared_experts": 2}},
    "ple": {"architecture": {"name": "ple", "levels": 2}},
    "home": {"architecture": {"name": "home", "feature_rank": 2, "groups": {"a": ("like",), "b": ("rating",)}}},
    "stem": {"architecture": {"name": "stem"}, "embedding_dim": 12},
    "shared bottom": {"architecture": {"name": "shared_bottom"}, "gate": {"name": "top_k"}},
    "crossed": {"interaction": {"name": "dcn_v2"}, "norm": "layer", "bottom": (8, 8), "residual": True},
}


def ranker_of(name: str, **changes: Any) -> Ranker:
    return lively_ranker(SCHEMA, small_config(**ARCHITECTURES[name], **changes))


def outputs_in_training(ranker: Ranker) -> RankerOutput:
    output: RankerOutput = ranker.train()(TensorInputs.from_numpy(inputs(SCHEMA, 64, 64, seed=9)))
    return output


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_member_depends_on_what_another_one_learns(name: str) -> None:
    ranker = ranker_of(name, members=3, dropout=0.0)
    output = outputs_in_training(ranker)
    assert len(output.members) == 3
    network = dict(ranker.network.named_parameters())
    own = {n for n in network if n.partition(".")[0] in {"bottom", "levels", "towers"}}
    moved: list[dict[str, Tensor]] = []
    for member in output.members:
        gradients = torch.autograd.grad(member.sum(), [network[n] for n in own], retain_graph=True, allow_unused=True)
        reached = (torch.zeros_like(network[n]) if g is None else g for n, g in zip(own, gradients, strict=True))
        moved.append({n: g != 0 for n, g in zip(own, reached, strict=True)})
    for n in own:
        together = torch.stack([each[n].int() for each in moved]).sum(0)
        assert int(together.max()) <= 1, n
    assert all(any(bool(marks.any()) for marks in each.values()) for each in moved)
    if "bottom" in ARCHITECTURES[name]:
        assert all(bool(each["bottom.blocks.0.linear.weight"].any()) for each in moved)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_answer_is_the_mean_of_the_members(name: str) -> None:
    output = outputs_in_training(ranker_of(name, members=3, dropout=0.0))
    torch.testing.assert_close(output.logits_BT, torch.stack(output.members).mean(0))
    first, second, _ = output.members
    assert float((first - second).detach().abs().mean()) > 1e-2


def test_a_chain_multiplies_each_members_chances_in_training_and_the_mean_ones_when_served() -> None:
    tasks = (TASKS[0], TASKS[0].model_copy(update={"name": "share"}))
    schema = small_schema(tasks=tasks)
    ranker = lively_ranker(schema, small_config(members=2, chains={"share": "like"}, dropout=0.0))
    given = TensorInputs.from_numpy(inputs(schema, 64, 64))
    towers = ranker.network.towers
    raw = torch.randn(4, 5, 1)
    outputs = [[*raw[:2]], [*raw[2:]]]
    each = [towers._answers(own) for own in outputs]
    for own, answer in zip(outputs, each, strict=True):
        torch.testing.assert_close(answer[:, 1].sigmoid(), (own[0].sigmoid() * own[1].sigmoid()).squeeze(1))
    assert ranker.train()(given).members[0].shape == (64, 2)
    assert not ranker.eval()(given).members


def test_one_member_is_the_model_that_it_was() -> None:
    alone, before = (Ranker(SCHEMA, small_config(**changes)) for changes in ({"members": 1}, {}))
    assert alone.state_dict().keys() == before.state_dict().keys()
    assert not outputs_in_training(alone).members


def test_each_member_learns_from_its_own_loss() -> None:
    weights = torch.ones(6, 2)
    labels = torch.tensor([[0.0, 3.0], [1.0, 4.0], [1.0, 2.0], [0.0, 3.5], [1.0, 5.0], [0.0, 1.0]])
    users = torch.tensor([1, 1, 1, 2, 2, 2])
    loss = RankingLoss(TASKS, within_user={"like": WithinUserConfig(name="pairwise", weight=0.5)})
    members = tuple(torch.randn(6, 2) for _ in range(3))
    alone = [loss(RankerOutput(each, {}, (), each), labels, weights, users) for each in members]
    mean = torch.stack(members).mean(0)
    together = loss(RankerOutput(mean, {}, (), mean, members), labels, weights, users)
    torch.testing.assert_close(together.tasks_T, torch.stack([each.tasks_T for each in alone]).mean(0))
    torch.testing.assert_close(together.total, torch.stack([each.total for each in alone]).mean())
    by_row = [loss.by_row(RankerOutput(each, {}, (), each), labels, weights) for each in members]
    torch.testing.assert_close(
        loss.by_row(RankerOutput(mean, {}, (), mean, members), labels, weights), torch.stack(by_row).mean(0)
    )
    of_the_mean = loss(RankerOutput(mean, {}, (), mean), labels, weights, users)
    assert float(of_the_mean.total) < float(together.total) - 1e-3


def test_gates_penalties_weigh_as_those_of_one_model() -> None:
    gate = TOP_K | {"regularisers": {"load_balance": 1.0}}
    one, four = (lively_ranker(SCHEMA, small_config(gate=gate, members=members)) for members in (1, 4))
    sums = [float(outputs_in_training(each).penalties["load_balance"].detach()) for each in (one, four)]
    # About 1 for each task's gate.
    assert sums == pytest.approx([2.0, 2.0], abs=0.4)


def test_members_compare_their_own_gates_histories() -> None:
    settings = {"sequences": {"history": {"name": "din"}}, "routing": "history", "history_contrast": {}}
    ranker = lively_ranker(SCHEMA, small_config(architecture={"name": "ple", "levels": 2}, members=2, **settings))

    def slopes() -> list[Tensor]:
        torch.manual_seed(0)
        penalty = outputs_in_training(ranker).penalties["history_contrast"]
        first = [gate.projection.weight for gate in ranker.network._gates_of(0) if gate.projection is not None]
        return list(torch.autograd.grad(penalty, first))

    before = slopes()
    assert len(before) == len(ranker.network.typed_gates) // 2
    with torch.no_grad():
        for gate in ranker.network._gates_of(1):
            assert gate.projection is not None
            gate.projection.weight.mul_(3)
    torch.testing.assert_close(slopes(), before)
    assert all(bool(each.any()) for each in before)


IN_EVERY_RUN = {
    ("shared experts", "sparse"),
    ("shared experts alone", "sparse"),
    ("ple", "dense"),
    ("crossed", "dense"),
}
GRAPHS = [
    pytest.param(*case, marks=() if case in IN_EVERY_RUN else pytest.mark.pairs)
    for case in product(ARCHITECTURES, ("dense", "sparse"))
    if case != ("shared bottom", "sparse")
]


@pytest.mark.parametrize(("name", "form"), GRAPHS)
def test_the_graph_answers_alike(name: str, form: Any, tmp_path: Path) -> None:
    ranker = ranker_of(name, members=2)
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), tmp_path / "model.onnx", form=form)
    assert report.worst_difference <= 1e-5


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_moves_the_mean(method: Any, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(members=2, tower_widths=(), monotone={"price": "increasing"}))
    given = TensorInputs.from_numpy(inputs(SCHEMA, 2000, 2000))
    with torch.no_grad():
        before = ranker(given).logits_BT
        chance = torch.sigmoid(20 * (before[:, 0] - before[:, 0].mean()))
        labels = torch.stack([torch.bernoulli(chance, generator=torch.Generator().manual_seed(0)), before[:, 1]], 1)
        arrays = (before.numpy(), labels.numpy(), torch.ones_like(before).numpy())
        fitted = calibrate(ranker, *arrays, {"like": method})
        after = ranker(given).logits_BT
    expected = torch.from_numpy(fitted["like"].apply(before[:, 0].numpy()))
    torch.testing.assert_close(after[:, 0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[:, 1], before[:, 1])
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), tmp_path / "model.onnx", form="dense")
    assert report.worst_difference <= 1e-5


def test_what_every_row_takes_stays_behind_the_routed_sets() -> None:
    sets = (ExpertSet(4, (0, 1)), ExpertSet(1, (0, 1), always=True))
    gates = (GatePlan((0,), (0, 1)), GatePlan((1,), (0, 1), kind="always"))
    plan = ArchitecturePlan((LevelPlan(sets, gates, ((0, 1),)),), (0, 0))
    (level,) = in_members(plan, 2, own_input=True).levels
    assert [(each.experts, each.reads, each.always) for each in level.sets] == [
        (4, (0,), False),
        (4, (1,), False),
        (1, (0,), True),
        (1, (1,), True),
    ]
    assert [(gate.sets, gate.reads) for gate in level.gates] == [((0,), (0,)), ((2,), (0,)), ((1,), (1,)), ((3,), (1,))]
    assert level.streams == ((0, 1), (2, 3))
