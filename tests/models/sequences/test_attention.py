"""DIN's and SIM's attention against their equations, written out event by event in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.errors import ConfigError
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sequences import DINConfig, SIMConfig
from models.sequences.din import DIN
from models.sequences.history_contrast import history_contrast
from models.sequences.sim import SIM
from tests.models.small import inputs, small_config, small_schema

Floats = NDArray[np.float64]
SLOTS, WIDTH, TARGET = 5, 6, 4
INSIDE = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])


def array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().double().numpy()


def silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("normalise", [False, True])
def test_din_equals_equation_three_event_by_event(*, normalise: bool) -> None:
    torch.manual_seed(0)
    unit = DINConfig(widths=(3, 2), normalise=normalise).build(WIDTH, TARGET)
    assert isinstance(unit, DIN)
    events, target = torch.randn(3, SLOTS, WIDTH), torch.randn(3, TARGET)
    answers = array(unit(events, target, INSIDE))
    # The layer over [event, candidate, difference, product] as one matrix.
    first = np.hstack([array(layer.weight) for layer in (unit.event, unit.candidate, unit.difference, unit.product)])
    weight, bias = (array(parameter) for parameter in unit.hidden[0].parameters())
    for row in range(3):
        scores = []
        for event in array(events[row])[INSIDE[row].numpy()]:
            e, v = event[:TARGET], array(target[row])
            x = silu(first @ np.concatenate([event, v, e - v, e * v]) + array(unit.event.bias))
            x = silu(weight @ x + bias)
            scores.append((array(unit.score.weight) @ x + array(unit.score.bias)).item())
        weights = np.exp(scores) / np.exp(scores).sum() if normalise and scores else np.array(scores)
        expected = weights @ array(events[row])[INSIDE[row].numpy()] if scores else np.zeros(WIDTH)
        np.testing.assert_allclose(answers[row], expected, rtol=1e-5, atol=1e-6)


def test_sim_equals_equations_four_and_five_head_by_head() -> None:
    torch.manual_seed(0)
    unit = SIMConfig(search="authors", heads=2, head_width=3).build(WIDTH, TARGET)
    assert isinstance(unit, SIM)
    events, target = torch.randn(3, SLOTS, WIDTH), torch.randn(3, TARGET)
    answers = array(unit(events, target, INSIDE))
    for row in range(3):
        found = array(events[row])[INSIDE[row].numpy()]
        for head in range(2):
            part = slice(head * 3, head * 3 + 3)
            query = array(unit.candidate.weight)[part] @ array(target[row])
            scores = np.array([query @ (array(unit.event.weight)[part] @ e) / np.sqrt(3) for e in found])
            mixed = np.exp(scores) / np.exp(scores).sum() @ found if len(found) else np.zeros(WIDTH)
            np.testing.assert_allclose(answers[row][head * WIDTH : (head + 1) * WIDTH], mixed, rtol=1e-5, atol=1e-6)


def test_the_search_keeps_the_events_of_the_candidates_own_value_and_unknown_is_like_nobody() -> None:
    schema = small_schema()
    ranker = Ranker(schema, small_config(sequences={"history": {"name": "sim", "search": "history"}}))
    assert ranker.attended is not None
    (plan,) = ranker.attended.plans
    ids = torch.tensor([[3, 4, 3], [0, 0, 5]])
    assert plan.matches(ids, torch.tensor([3, 0])).tolist() == [[True, False, True], [False, False, False]]


def test_the_newest_events_alone_are_attended() -> None:
    schema = small_schema()
    ranker = Ranker(schema, small_config(sequences={"history": {"name": "din", "last": 2}})).eval()
    given = TensorInputs.from_numpy(inputs(schema, 1, 1))
    lists = given.request._replace(list_values_V=torch.tensor([7, 8, 9]), list_lengths_LN=torch.tensor([[3]]))
    longer = lists._replace(list_values_V=torch.tensor([1, 8, 9]))
    shorter = lists._replace(list_values_V=torch.tensor([8, 9]), list_lengths_LN=torch.tensor([[2]]))
    attended = [ranker.columns(given._replace(request=each))[:, ranker.width :] for each in (lists, longer, shorter)]
    torch.testing.assert_close(attended[0], attended[1], rtol=0, atol=0)
    torch.testing.assert_close(attended[0], attended[2], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        ({"genres": {"name": "din"}}, "model.sequences names 'genres', which is not a list of the user or the context"),
        (
            {"history": {"name": "din", "target": "tab"}},
            "compared with 'tab', which is not an id feature of the candidate",
        ),
        ({"history": {"name": "sim", "search": "tags"}}, "must be a list that has a counterpart of the candidate: his"),
    ],
)
def test_what_the_schema_does_not_have_is_refused_by_name(sequences: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Ranker(small_schema(), small_config(sequences=sequences))


def test_the_contrast_is_infonce_over_the_batch() -> None:
    torch.manual_seed(0)
    whole, masked = torch.randn(4, 3), torch.randn(4, 3)
    unit = [array(each) / np.linalg.norm(array(each), axis=1, keepdims=True) for each in (whole, masked)]
    scores = np.exp(unit[1] @ unit[0].T / 0.5)
    expected = -np.log(np.diag(scores) / scores.sum(axis=1)).mean()
    assert float(history_contrast(whole, masked, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_gates_that_route_by_history_have_a_contrast_in_training_alone() -> None:
    schema = small_schema()
    ranker = Ranker(
        schema,
        small_config(sequences={"history": {"name": "din"}}, routing="history", history_contrast={"weight": 0.1}),
    )
    given = TensorInputs.from_numpy(inputs(schema, 32, 32))
    penalty = ranker.train()(given).penalties["history_contrast"]
    penalty.backward()
    assert ranker.network.typed_gates[0].projection.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert "history_contrast" not in ranker.eval()(given).penalties
