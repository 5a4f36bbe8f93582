"""The model's configuration: what a user writes under ``model:`` in the YAML file."""

from typing import Annotated, Literal

from pydantic import Field

from features.settings import Settings
from models.gates import DSelectKConfig, GateConfig

Activation = Literal["relu", "gelu", "silu"]
Norm = Literal["none", "batch", "layer"]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1)]


class ModelConfig(Settings):
    """A multi-gate mixture of experts over embeddings and dense features.

    `bottom` are the widths of shared layers before the experts (none by default); `experts` how many, each with
    the layers `expert_widths`; `tower_widths` the hidden layers of each task's tower, before its one output.
    `gate_scope` gives each task its own gate or all tasks one; `routing` says whether a gate weighs the experts anew
    for each row or, static, once for all. `id_dropout` replaces ids by 0 (unknown) in training, in tables of at least
    `id_dropout_rows` rows.
    """

    embedding_dim: Annotated[int, Field(ge=1)] = 16
    embedding_init: Annotated[float, Field(gt=0.0)] = 0.05
    id_dropout: Rate = 0.0
    id_dropout_rows: Annotated[int, Field(ge=1)] = 1
    embedding_dropout: Rate = 0.0
    input_norm: Literal["none", "batch"] = "batch"
    bottom: tuple[Width, ...] = ()
    experts: Width = 8
    expert_widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    tower_widths: tuple[Width, ...] = (32,)
    activation: Activation = "relu"
    norm: Norm = "batch"
    dropout: Rate = 0.1
    gate: GateConfig = DSelectKConfig()
    gate_scope: Literal["per_task", "shared"] = "per_task"
    routing: Literal["per_example", "static"] = "per_example"
