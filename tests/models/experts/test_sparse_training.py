"""Conditional computation in training: equal to the dense computation, gradients included, and chosen where it pays."""

from typing import Any

import pytest
import torch
from torch import Tensor

from contract.errors import ConfigError
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}
CASES: list[dict[str, Any]] = [
    {"gate": TOP_K},
    {"gate": TOP_K, "gate_scope": "shared", "norm": "layer", "bottom": (12,)},
    {"gate": TOP_K, "routing": "static", "activation": "gelu"},
    {"gate": {"name": "dselect_k", "k": 2}, "expert_widths": (8, 8, 8), "residual": True},
    {"gate": {"name": "hash", "feature": "item"}},
    {"gate": TOP_K, "architecture": {"name": "ple", "task_experts": 2}, "norm": "layer"},
    {"gate": TOP_K, "architecture": {"name": "mmoe", "private_experts": 1}},
]


def config(mode: str, **changes: Any) -> ModelConfig:
    return small_config(**({"norm": "none", "dropout": 0.0, "sparse_training": mode} | changes))


def trained(ranker: Ranker, rows: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    logits = ranker.train()(TensorInputs.from_numpy(inputs(SCHEMA, rows, rows))).logits_BT
    logits.square().mean().backward()
    return logits, {name: p.grad for name, p in ranker.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", CASES)
def test_sparse_training_equals_dense_training_gradients_included(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    dense = Ranker(SCHEMA, config("off", **changes))
    sparse = Ranker(SCHEMA, config("on", **changes))
    sparse.load_state_dict(dense.state_dict())
    (expected, expected_grads), (actual, actual_grads) = trained(dense), trained(sparse)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    for name, parameter in sparse.named_parameters():
        wanted = expected_grads.get(name, torch.zeros_like(parameter))
        torch.testing.assert_close(actual_grads[name], wanted, rtol=0, atol=1e-6, msg=name)


def test_experts_with_batch_norm_are_computed_for_all_rows() -> None:
    level = Ranker(SCHEMA, config("auto", norm="batch", gate=TOP_K, experts=32)).network.typed_levels[0]
    assert not level.execution.possible
    with pytest.raises(ConfigError, match="batch norm in the experts"):
        Ranker(SCHEMA, config("on", norm="batch", gate=TOP_K))


@pytest.mark.parametrize(("experts", "rows", "expected"), [(32, 256, "sparse"), (3, 256, "dense"), (32, 8, "dense")])
def test_auto_goes_by_the_share_of_pairs_and_the_rows_an_expert_sees(experts: int, rows: int, expected: str) -> None:
    torch.manual_seed(0)
    ranker = Ranker(SCHEMA, config("auto", gate=TOP_K, experts=experts, gate_scope="shared")).train()
    routings = ranker(TensorInputs.from_numpy(inputs(SCHEMA, rows, rows))).routings
    sparse = ranker.network.typed_levels[0].execution.is_sparse(routings, rows)
    assert ("sparse" if sparse else "dense") == expected


def test_static_gates_that_leave_experts_out_always_compute_the_rest_alone() -> None:
    torch.manual_seed(0)
    ranker = Ranker(SCHEMA, config("auto", gate=TOP_K, experts=3, gate_scope="shared", routing="static")).train()
    routings = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 4, 4))).routings
    assert ranker.network.typed_levels[0].execution.is_sparse(routings, 4)


def test_sparse_training_equals_dense_training_under_autocast() -> None:
    torch.manual_seed(0)
    dense, sparse = (Ranker(SCHEMA, config(mode, gate=TOP_K, bottom=(12,))) for mode in ("off", "on"))
    sparse.load_state_dict(dense.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (expected, expected_grads), (actual, actual_grads) = trained(dense), trained(sparse)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-2)
    for name, wanted in expected_grads.items():
        torch.testing.assert_close(actual_grads[name], wanted, rtol=0.1, atol=2e-2, msg=name)
