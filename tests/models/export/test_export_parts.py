"""The graph of every part that a model may have beside gates and architectures."""

from pathlib import Path
from typing import Any

import pytest

from contract.schema import DenseSpec, IdSpec, TaskSpec
from models.export import export
from tests.models.cuda_operators import CUDA
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema(
    features=(
        IdSpec(name="user", kind="id", side="user", rows=40),
        IdSpec(name="item", kind="id", side="item", rows=30),
        DenseSpec(name="age", side="user", encoding="standardise"),
        DenseSpec(name="hour", side="context", encoding="standardise"),
        DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0)),
    ),
    tasks=(
        TaskSpec(name="click", kind="binary", base_rate=0.3),
        TaskSpec(name="buy", kind="binary", base_rate=0.1),
    ),
)
TOP_K = {"name": "top_k", "k": 2}
PRIVATE = {"name": "mmoe", "private_experts": 1}
CASES: list[tuple[dict[str, Any], str, str]] = [
    (
        {"gate": TOP_K, "interaction": {"name": "dcn_v2"}, "routing": "user", "chains": {"buy": "click"}},
        "sparse",
        "sparse",
    ),
    ({"gate": TOP_K, "interaction": {"name": "autoint"}, "routing": "context", "bottom": (8, 8)}, "dense", "dense"),
    ({"gate": TOP_K, "expert_widths": (8, 8), "residual": True, "norm": "layer"}, "sparse", "sparse"),
    ({"gate": TOP_K, "expert_widths": (8, 8), "residual": True, "routing": "user"}, "dense", "dense"),
    ({"gate": TOP_K, "architecture": PRIVATE, "gate_scope": "shared"}, "sparse", "sparse"),
    ({"gate": TOP_K, "architecture": {"name": "ple"}, "routing": "static"}, "auto", "static"),
    (
        {"gate": {"name": "hash", "feature": "user"}, "architecture": {"name": "home"}, "routing": "static"},
        "sparse",
        "sparse",
    ),
]


@pytest.mark.parametrize(("changes", "asked", "form"), CASES)
def test_the_graph_answers_as_the_eager_model(changes: dict[str, Any], asked: Any, form: str, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**changes))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), tmp_path / "model.onnx", form=asked)
    assert report.form == form
    assert report.worst_difference <= 1e-5
    assert set(report.operators) <= CUDA
