"""Routed training by grouped products equals the dense computation, gradients included; on the CPU here."""

from typing import Any

import pytest
import torch

from models.architectures import PlanRequest
from models.experts.grouped_training import mix_grouped
from models.experts.level import Level, RoutingInput
from models.experts.level import mix as mix_densely
from models.model_config import ModelConfig

TASKS = ("a", "b")


def level(**changes: Any) -> Level:
    options = {
        "experts": 8,
        "expert_widths": (16, 8),
        "gate": {"name": "top_k", "k": 2},
        "norm": "none",
        "dropout": 0.0,
    } | changes
    config = ModelConfig.model_validate(options)
    plan = config.architecture.plan(PlanRequest(TASKS, config.experts, config.gate_scope == "shared")).levels[0]
    torch.manual_seed(0)
    return Level(plan, [24], 0 if config.routing == "static" else None, config).train()


CASES: list[dict[str, Any]] = [
    {},
    {"gate_scope": "shared"},
    {"norm": "layer", "gate": {"name": "top_p", "p": 0.6, "k": 3}},
    {"gate": {"name": "top_k", "k": 3, "null_experts": 2}, "activation": "relu"},
    {"expert_widths": (8, 8), "residual": True},
    {"architecture": {"name": "cgc"}},
    {"architecture": {"name": "mmoe", "shared_experts": 1}, "gate_scope": "shared"},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
@pytest.mark.parametrize("rows", [1, 64])
def test_mixtures_and_gradients_are_those_of_the_dense_computation(changes: dict[str, Any], rows: int) -> None:
    model = level(**changes)
    x_BD = torch.randn(rows, 24).requires_grad_()
    routings = model.routings([x_BD], RoutingInput(None, None))
    experts = [bank.experts for bank in model.typed_banks]
    inputs = [bank.input([x_BD]) for bank in model.typed_banks]
    answers = torch.cat([run(x) for run, x in zip(experts, inputs, strict=True)], dim=1)
    expected = mix_densely(answers, routings)
    found = mix_grouped(experts, inputs, routings, model.slots())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted = [x_BD, *(p for p in model.parameters() if p.requires_grad)]
    pairs = [
        torch.autograd.grad(each.square().sum(), wanted, retain_graph=True, allow_unused=True)
        for each in (found, expected)
    ]
    for a, b in zip(*pairs, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_a_card_takes_it_and_answers_as_the_dense_form(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"}))

    def counted(*given: Any) -> torch.Tensor:
        called.append(1)
        return mix_grouped(*given)

    monkeypatch.setattr("models.experts.level.mix_grouped", counted)
    x_BD = torch.randn(64, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense = level(sparse_training="off", gate_scope="shared")([x_BD], RoutingInput(None, None))
        assert not called
        grouped = level(gate_scope="shared")([x_BD], RoutingInput(None, None))
    assert called
    torch.testing.assert_close(grouped.streams[0], dense.streams[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("changes", [{"expert_widths": (12, 8)}, {"norm": "batch"}, {"gate": {"name": "softmax"}}])
def test_what_it_does_not_fit_is_computed_as_before(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"}))
    model = level(**changes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not model._is_grouped(model.slots(), "cpu")
    assert not model._is_grouped(model.slots(), "cpu")
