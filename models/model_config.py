"""The model's configuration: what a user writes under ``model:`` in the YAML file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from contract.settings import Settings
from models.architectures import ArchitectureConfig, MMoEConfig, SharedBottomConfig
from models.gates import DSelectKConfig, GateConfig, TopKConfig
from models.input_layout import TableDims
from models.interactions import InteractionConfig, NoInteractionConfig
from models.layers.mlp import Activation, BlockConfig, Norm
from models.layers.side_columns import Direction, PersonalGatesConfig
from models.sequences import HistoryContrastConfig, SequenceConfig

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1)]
# fbgemm's kernels read four numbers at a time.
Columns = Annotated[int, Field(ge=4, multiple_of=4)]


class ModelConfig(Settings):
    """A mixture of experts over embeddings and dense features."""

    architecture: ArchitectureConfig = MMoEConfig()
    """How experts are shared between tasks."""
    embedding_dim: Columns = 16
    """Columns of an embedding."""
    table_dims: dict[str, Columns] = {}
    """Columns of single tables' embeddings, by a table's name; others have `embedding_dim`."""
    embedding_init: Annotated[float, Field(gt=0.0)] = 0.05
    """The standard deviation of the normal distribution from which embeddings start."""
    id_dropout: Rate | None = None
    """The share of ids that training takes for unknown, so that the answer to an unknown id is trained; null: one in 20
    of the user's and of the item's own ids."""
    id_dropout_rows: Annotated[int, Field(ge=1)] = 1
    """Only tables of at least so many rows lose ids."""
    embedding_dropout: Rate = 0.0
    """The share of embedding columns that training drops."""
    input_norm: Literal["none", "batch"] = "batch"
    """Whether the network's input is batch normalised."""
    interaction: InteractionConfig = NoInteractionConfig()
    """Features that are made of features before the experts."""
    sequences: dict[str, SequenceConfig] = {}
    """Histories that the candidate attends: by the name of a list of the user's or of the context's, how. What comes of
    it stands beside the list's plain sum or mean."""
    bottom: tuple[Width, ...] = ()
    """Widths of shared layers before the experts."""
    experts: Width = 8
    """Experts of all tasks together, in each of `members`; the architecture may add others."""
    members: Width = 1
    """How many networks over the same embeddings answer together, each with shared layers, experts, gates and towers of
    its own. Each learns from its own loss, and answers are the mean of their logits, of regressions the mean."""
    expert_widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    """Widths of an expert's layers."""
    tower_widths: tuple[Width, ...] = (32,)
    """Widths of the hidden layers of each task's tower, before its one output."""
    personal_gates: PersonalGatesConfig | None = None
    """Gates by some features on the layers of every tower (PEPNet's PPNet); null: none."""
    monotone: dict[str, Direction] = {}
    """Dense features with which no answer may ever fall (``increasing``) or rise (``decreasing``), by name. The experts
    do not see them; each tower adds a term whose slopes depend on all other features."""
    activation: Activation = "silu"
    """Of all layers."""
    norm: Norm = "batch"
    """Of all layers."""
    dropout: Rate = 0.1
    """Of all layers."""
    residual: bool = False
    """Add a layer's input to its output, from the second layer on, where the widths are equal."""
    gate: GateConfig = TopKConfig()
    """How experts are selected and weighed."""
    gate_scope: Literal["per_task", "shared"] = "per_task"
    """Whether each task has its own gate."""
    routing: Literal["all", "user", "context", "history", "static"] = "all"
    """What a gate weighs the experts by: ``all`` that they read themselves, the features of the ``user`` or of the
    ``context`` alone, the attended ``history`` (`sequences`), or nothing (``static``), once for all rows."""
    history_contrast: HistoryContrastConfig | None = None
    """With `routing` ``history``: a loss that draws the gates' weights of a history and of the same with some events
    left out together, for users with few events; null: none."""
    routing_norm: Literal["none", "batch"] = "batch"
    """Whether the columns that gates route by are centred and scaled over the batch, where no batch norm stands before
    them already. Without it, gates behind shared layers tend to settle on the same experts for all rows."""
    max_union: Width | None = None
    """Refuse gates that could select more experts than this for one row, over all tasks, levels and members."""
    chains: dict[str, str] = {}
    """For a task, the task that must happen first: its answer is the product of both probabilities."""
    sparse_training: Literal["auto", "on", "off"] = "auto"
    """Whether training too computes only the selected experts; ``auto``: where it pays."""

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
        if self.monotone and self.input_norm == "none":
            message = "monotone takes features from the experts by way of the input's norm: leave input_norm at batch"
            raise ValueError(message)
        if self.history_contrast is not None and self.routing != "history":
            message = f"history_contrast compares gates that route by history, but routing is {self.routing}"
            raise ValueError(message)
        return self

    @property
    def dims(self) -> TableDims:
        """How many columns each embedding has."""
        return TableDims(self.embedding_dim, self.table_dims)

    @property
    def blocks(self) -> BlockConfig:
        """How layers are made."""
        return BlockConfig(self.activation, self.norm, self.dropout, self.residual)
