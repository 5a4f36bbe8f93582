"""A small schema with every kind of feature, and rankers over it, for the tests of models and pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.inputs import Inputs
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from models.export.parity_sample import generate, sanitised
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

FEATURES: tuple[IdSpec | DenseSpec, ...] = (
    IdSpec(name="user", kind="id", side="user", rows=100),
    IdSpec(name="history", kind="id_list", side="user", rows=50, table="item", max_length=10),
    IdSpec(name="tab", kind="id", side="context", rows=4),
    IdSpec(name="item", kind="id", side="item", rows=50),
    IdSpec(name="genres", kind="id_list", side="item", rows=9, pooling="sum", max_length=5),
    IdSpec(name="tags", kind="id_list", side="item", rows=7, max_length=5),
    DenseSpec(name="age", side="user", encoding="standardise"),
    DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0, 3.0, 4.0), null_bin=True),
    DenseSpec(name="plays", side="item", encoding="log1p"),
)
TASKS = (
    TaskSpec(name="like", kind="binary", base_rate=0.3),
    TaskSpec(name="rating", kind="regression", base_rate=3.5, spread=1.1),
)


def small_schema(**changes: Any) -> Schema:
    return Schema(**({"features": FEATURES, "tasks": TASKS} | changes))


def lean_schema() -> Schema:
    """One id and one number a side, for tests of what comes after the look-ups: a graph is written in half the time."""
    return small_schema(features=tuple(spec for spec in FEATURES if spec.name in {"user", "item", "age", "price"}))


def small_config(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "activation": "relu",
        "gate": {"name": "dselect_k"},
        "embedding_dim": 8,
        "experts": 4,
        "expert_widths": (16, 8),
        "tower_widths": (8,),
    }
    return ModelConfig.model_validate(sizes | changes)


def inputs(schema: Schema, requests: int, candidates: int, seed: int = 0) -> Inputs:
    """Random inputs whose ids are all rows of their tables."""
    return sanitised(generate(schema, requests, candidates, np.random.default_rng(seed)), schema)


def lively_ranker(schema: Schema, config: ModelConfig, seed: int = 0) -> Ranker:
    """A ranker whose answers vary and whose batch norms have seen data, as if trained."""
    torch.manual_seed(seed)
    ranker = Ranker(schema, config)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ranker.train()
    for step in range(3):
        ranker(TensorInputs.from_numpy(inputs(schema, 128, 128, seed=step)))
    return ranker.eval()


def ill_conditioned(weight: float = 3.0) -> Ranker:
    """A ranker whose columns hardly varied in training, so that the edges of their ranges are far outside."""
    ranker = lively_ranker(small_schema(), small_config(gate={"name": "softmax"}))
    norm = ranker.network.input_norm
    assert isinstance(norm, torch.nn.BatchNorm1d)
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_var.clamp_(max=1e-4)
        norm.weight.mul_(weight)
    return ranker


def graph_path(directory: Path) -> Path:
    return directory / "model.onnx"
