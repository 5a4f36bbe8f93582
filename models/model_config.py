"""The model's configuration: what a user writes under ``model:`` in the YAML file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.settings import Settings
from models.architectures import ArchitectureConfig, MMoEConfig, SharedBottomConfig
from models.gates import DSelectKConfig, GateConfig, TopKConfig
from models.interactions import InteractionConfig, NoInteractionConfig
from models.layers.mlp import Activation, BlockConfig, Norm

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1)]


class ModelConfig(Settings):
    """A mixture of experts over embeddings and dense features.

    `interaction` makes features of features first; `bottom` are the widths of shared layers before the experts (none
    by default); `experts` how many there are for all tasks together, each with the layers `expert_widths`; what else
    there is says `architecture`. `tower_widths` are the hidden layers of each task's tower, before its one output.
    `residual` adds a layer's input to its output, from the second layer on, where the widths are equal.
    `gate_scope` gives each task its own gate or all tasks one; `routing` says what a gate weighs the experts by: what
    they read themselves, the features of the user or of the context alone, or, static, nothing: once for all rows.
    `routing_norm` centres and scales the columns that gates route by, over the batch, where no batch norm stands before
    them already; without it, gates behind shared layers tend to settle on the same experts for all rows.
    `max_union` refuses gates that could select more experts than this for one row, over all tasks and levels.
    `chains` names, for a task, the task that must happen first: its answer is the product of both probabilities.
    `sparse_training` computes only the selected experts in training too; ``auto`` does where it pays.
    `id_dropout` takes this share of ids for unknown in training, in tables of at least `id_dropout_rows` rows, so that
    the answer to an id that is unknown is trained; without a rate, one in 20 of the user's and of the item's own ids.
    """

    architecture: ArchitectureConfig = MMoEConfig()
    embedding_dim: Annotated[int, Field(ge=1)] = 16
    embedding_init: Annotated[float, Field(gt=0.0)] = 0.05
    id_dropout: Rate | None = None
    id_dropout_rows: Annotated[int, Field(ge=1)] = 1
    embedding_dropout: Rate = 0.0
    input_norm: Literal["none", "batch"] = "batch"
    interaction: InteractionConfig = NoInteractionConfig()
    bottom: tuple[Width, ...] = ()
    experts: Width = 8
    expert_widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    tower_widths: tuple[Width, ...] = (32,)
    activation: Activation = "silu"
    norm: Norm = "batch"
    dropout: Rate = 0.1
    residual: bool = False
    gate: GateConfig = TopKConfig()
    gate_scope: Literal["per_task", "shared"] = "per_task"
    routing: Literal["all", "user", "context", "static"] = "all"
    routing_norm: Literal["none", "batch"] = "batch"
    max_union: Width | None = None
    chains: dict[str, str] = {}
    sparse_training: Literal["auto", "on", "off"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _one_expert_needs_no_choice(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("experts") == 1 and not given.keys() & {"gate", "architecture"}:
            return {**given, "gate": {"name": "softmax"}}
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Both defaults that there have been stand for a gate that nobody chose.
        if isinstance(self.architecture, SharedBottomConfig) and self.gate not in (TopKConfig(), DSelectKConfig()):
            message = f"shared_bottom has no experts to choose from, so gate {self.gate.name} has no use: leave it out"
            raise ValueError(message)
        return self

    @property
    def blocks(self) -> BlockConfig:
        """How layers are made."""
        return BlockConfig(self.activation, self.norm, self.dropout, self.residual)
