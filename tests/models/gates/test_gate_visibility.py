"""Gates that learn how many experts a row takes, and gates that hide experts from rare ids."""

import pytest
import torch

from contract.errors import ConfigError
from models.gates import MaskMoEConfig, TopAnyConfig, TopKConfig
from models.gates.mask_moe import MaskMoEGate
from models.gates.top_any import TopAnyGate
from models.gates.top_k import TopKGate
from models.ranker import Ranker
from tests.models.small import small_config, small_schema


def test_a_row_takes_the_experts_that_pass_their_thresholds_alike_and_its_best_where_none_does() -> None:
    gate = TopAnyGate(TopAnyConfig(), 4, 3).eval()
    routing = gate.route(torch.tensor([[1.0, -1.0, 0.5, -2.0], [-3.0, -1.0, -2.0, -4.0]]))
    assert routing.weights_BE.tolist() == [[0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]]


def test_thresholds_learn_through_the_step_also_for_experts_that_are_not_taken() -> None:
    gate = TopAnyGate(TopAnyConfig(diversity=0.0), 3, 2).train()
    logits = torch.tensor([[1.0, -1.0, -2.0]], requires_grad=True)
    (gate.route(logits).weights_BE * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    slope = logits.detach().sigmoid() * (1 - logits.detach().sigmoid())
    torch.testing.assert_close(logits.grad, slope * torch.tensor([[1.0, 2.0, 3.0]]))


def mask_gate(**options: object) -> MaskMoEGate:
    config = MaskMoEConfig.model_validate({"feature": "item", "k": 2, "rows": 40, "rare": 10} | options)
    return MaskMoEGate(config, 4, 3)


def test_rare_ids_see_few_experts_and_frequent_ones_choose_among_all() -> None:
    gate = mask_gate()
    counts = torch.cat([torch.full((20,), 9), torch.full((20,), 10)])
    gate.fit(counts)
    assert gate.visible_RE[:20].sum(1).tolist() == [1] * 20
    assert bool(gate.visible_RE[20:].all())
    assert len(set(gate.visible_RE[:20].int().argmax(1).tolist())) > 1
    logits = torch.randn(40, 4)
    routing = gate.eval().route(logits, torch.arange(40))
    torch.testing.assert_close(routing.weights_BE[:20], gate.visible_RE[:20].float())
    assert torch.equal(routing.selected_BE[:20], gate.visible_RE[:20])
    free = TopKGate(TopKConfig(k=2), 4, 3).eval().route(logits)
    torch.testing.assert_close(routing.weights_BE[20:], free.weights_BE[20:])


def test_two_visible_experts_are_two_and_more_than_there_are_is_refused() -> None:
    gate = mask_gate(visible=2)
    gate.fit(torch.zeros(40))
    assert gate.visible_RE.sum(1).tolist() == [2] * 40
    with pytest.raises(ConfigError, match=r"gate\.visible is 5"):
        mask_gate(visible=5)


def test_a_mask_by_ids_needs_gates_that_weigh_row_by_row() -> None:
    with pytest.raises(ConfigError, match=r"model\.routing cannot be user"):
        Ranker(small_schema(), small_config(gate={"name": "mask_moe", "feature": "item"}, routing="user"))
