"""Towers that read features beside their mixtures: personal gates, and monotone features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import ConfigError, ExportError
from contract.schema import DenseSpec
from models.export import export
from models.export_graph.shared_tables import first_layer
from models.heads.monotone import MonotoneTerm
from models.interactions.epnet import EPNet
from models.interactions.gate_unit import GateUnit
from models.layers.side_columns import SideInput
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import FEATURES, graph_path, inputs, lively_ranker, small_config, small_schema

PERSONAL: dict[str, Any] = {"personal_gates": {"by": ["user", "item"], "hidden": 5}, "tower_widths": (6, 4)}
MONOTONE: dict[str, Any] = {"monotone": {"price": "decreasing", "plays": "increasing"}}
EPNET: dict[str, Any] = {"interaction": {"name": "epnet", "by": ["tab"], "hidden": 5}}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def gate_unit(own: dict[str, np.ndarray], prior: np.ndarray, x: np.ndarray) -> np.ndarray:
    """PEPNet, section 3.3.1, written out."""
    hidden = np.maximum(prior @ own["prior.weight"].T + own["prior.bias"] + x @ own["seen.weight"].T, 0)
    return 2 * sigmoid(hidden @ own["up.weight"].T + own["up.bias"])


def drawn(module: torch.nn.Module, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()


def test_epnet_equals_its_equations_written_out() -> None:
    net = EPNet([1, 2], 4, 3)
    drawn(net)
    x = torch.randn(7, 4)
    own = arrays(net.gate)
    expected = x.numpy() * gate_unit(own, x.numpy()[:, [1, 2]].astype(float), x.numpy().astype(float))
    np.testing.assert_allclose(net(x).detach().numpy(), expected, atol=1e-6)


def test_a_tower_with_personal_gates_equals_its_equations_written_out() -> None:
    config = small_config(**PERSONAL, norm="none", dropout=0.0)
    ranker = Ranker(small_schema(), config)
    tower = ranker.network.towers.typed_towers[0]
    drawn(tower)
    mixture, prior = torch.randn(5, 8), torch.randn(5, len(ranker.network.side.personal))
    own = arrays(tower)
    gate = {name.removeprefix("personal."): value for name, value in own.items() if name.startswith("personal.")}
    factors = np.split(gate_unit(gate, prior.double().numpy(), mixture.double().numpy()), [8, 14], axis=1)
    x = mixture.double().numpy() * factors[0]
    for layer in range(2):
        x = np.maximum(x @ own[f"hidden.{layer}.linear.weight"].T + own[f"hidden.{layer}.linear.bias"], 0)
        x = x * factors[layer + 1]
    expected = x @ own["head.weight"].T + own["head.bias"]
    answer = tower(mixture, SideInput(prior, torch.zeros(5, 0))).detach().numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_model_leans_on_many_bins_no_more_than_on_one_number() -> None:
    bins = tuple(float(edge) for edge in range(33))
    price = DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=bins)
    schema = small_schema(features=(*(spec for spec in FEATURES if spec.name != "price"), price))
    monotone = {"price": "increasing", "age": "decreasing"}
    ranker = Ranker(schema, small_config(monotone=monotone))
    signs = ranker.network.side.signs
    assert len(signs) == 33
    assert sorted({round(32 * sign) for sign in signs}) == [-32, 1]
    term = ranker.network.towers.typed_towers[0].monotone
    assert term is not None
    # All components full, which 32 slopes of .13 each would have made 4.1.
    most = term(torch.zeros(1, 8), torch.ones(1, 33) * torch.tensor([1.0 if sign > 0 else 0.0 for sign in signs]))
    assert 0.1 < most.item() < 0.2


def test_a_gate_unit_sends_no_gradient_into_what_it_scales() -> None:
    unit = GateUnit(2, 3, (3,), 4)
    drawn(unit)
    prior, x = torch.randn(5, 2, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    unit(prior, x)[0].sum().backward()
    assert prior.grad is not None
    assert x.grad is None


def test_a_monotone_term_equals_its_equation_written_out() -> None:
    term = MonotoneTerm(3, (1.0, -1.0))
    drawn(term)
    mixture, components = torch.randn(6, 3), torch.rand(6, 2)
    own = arrays(term)
    slopes = np.log1p(np.exp(mixture.numpy() @ own["slopes.weight"].T + own["slopes.bias"])) * [1.0, -1.0]
    expected = (slopes * components.numpy()).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(term(mixture, components).detach().numpy(), expected, atol=1e-5)


def answers_over(ranker: Ranker, feature: str, values: list[float], seed: int) -> np.ndarray:
    """Answers [values, rows, tasks] where all rows have each value of a dense candidate feature in turn."""
    given = inputs(ranker.schema, 64, 64, seed)
    column = [spec.name for spec in ranker.layouts[1].dense].index(feature)
    found = []
    for value in values:
        given.candidate.dense[:, column] = value
        with torch.no_grad():
            found.append(ranker(TensorInputs.from_numpy(given)).logits_BT.double().numpy())
    return np.stack(found)


@pytest.mark.parametrize("seed", range(3))
def test_answers_never_rise_or_fall_against_a_monotone_feature(seed: int) -> None:
    ranker = lively_ranker(small_schema(), small_config(**MONOTONE), seed)
    prices = answers_over(ranker, "price", [0.0, 0.4, 1.0, 2.5, 4.0], seed)
    assert (np.diff(prices, axis=0) < 0).all()
    plays = answers_over(ranker, "plays", [-2.0, 0.0, 3.0, 9.0], seed)
    assert (np.diff(plays, axis=0) > 0).all()


def test_without_the_constraint_the_same_answers_do_rise_and_fall() -> None:
    ranker = lively_ranker(small_schema(), small_config())
    steps = np.diff(answers_over(ranker, "price", [0.0, 1.0, 2.5, 4.0], 0), axis=0)
    assert (steps > 1e-4).any()
    assert (steps < -1e-4).any()


@pytest.mark.parametrize("changes", [PERSONAL | MONOTONE | {"bottom": (12,)}, MONOTONE | EPNET], ids=["ppnet", "epnet"])
def test_the_graph_answers_alike(changes: dict[str, Any], tmp_path: Path) -> None:
    ranker = lively_ranker(small_schema(), small_config(**changes, gate={"name": "top_k", "k": 2}))
    report = export(ranker, ranker.schema, inputs(ranker.schema, 1, 300), graph_path(tmp_path))
    assert report.worst_difference <= 1e-5


def test_no_sum_is_prepared_outside_a_graph_whose_towers_read_inputs() -> None:
    ranker = lively_ranker(small_schema(), small_config(**PERSONAL, bottom=(12,)))
    with pytest.raises(ExportError, match="the towers read inputs besides their mixtures"):
        first_layer(ranker)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"monotone": {"tab": "increasing"}}, "model.monotone names 'tab', which is not a dense feature"),
        ({"personal_gates": {"by": ["usr"]}}, "model.personal_gates.by names usr, which are not features"),
        ({"interaction": {"name": "epnet", "by": ["tb"]}}, "model.interaction.by names tb, which are not features"),
    ],
)
def test_a_name_that_is_no_such_feature_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ranker(small_schema(), small_config(**changes))


def test_monotone_features_need_the_norm_that_hides_them() -> None:
    with pytest.raises(ValueError, match="leave input_norm at batch"):
        small_config(**MONOTONE, input_norm="none")
