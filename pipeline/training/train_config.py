"""Training's configuration: what a user writes under ``train:`` in the YAML file."""

from typing import Annotated, Literal

from pydantic import Field

from contract.settings import Settings
from models.losses import LossScale, PointwiseConfig, WithinUserConfig
from models.weighting import FixedConfig, WeightingConfig

LearningRate = Annotated[float, Field(gt=0.0)]


class EarlyStopping(Settings):
    """Stop after `patience` epochs without a better `metric`, and keep the best epoch.

    `metric` is a task's name, or ``mean``: over tasks, the AUC of binary ones, and of regression ones the share of the
    label's variance that is explained.
    """

    patience: Annotated[int, Field(ge=1)] = 2
    metric: str = "mean"


class TrainConfig(Settings):
    """How a ranker is trained.

    `batch_size` is that of one rank. `gate_learning_rate` defaults to `learning_rate`; `embedding_learning_rate` is
    that of row-wise Adagrad. `schedule` ``one_cycle`` warms up over `warmup` of all steps and then falls to nothing by
    the last epoch. `bf16` ``auto`` uses bfloat16 for the network (never for gates) where the processor has it.
    `loss_scale` ``entropy`` measures each task's loss in what its base rate alone would lose, so that rare tasks count
    as much as others; ``none`` leaves cross-entropies in nats. `task_weights` weigh these losses by name, 1 where not
    named, and `weighting` says what comes on top of them while training goes on; `gradient_clip` bounds the network's
    gradient norm, 0 for none.
    """

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=2)] = 1024
    learning_rate: LearningRate = 1e-3
    gate_learning_rate: LearningRate | None = None
    embedding_learning_rate: LearningRate = 0.02
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-4
    embedding_weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    gradient_clip: Annotated[float, Field(ge=0.0)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping()
    bf16: Literal["auto", "off", "on"] = "auto"
    loss_scale: LossScale = "entropy"
    task_weights: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    losses: dict[str, PointwiseConfig] = {}
    """A task's own loss by its name, in place of cross-entropy or squared error."""
    within_user: dict[str, WithinUserConfig] = {}
    """A term by a binary task's name that compares rows of one user, on top of the task's own loss."""
    batches: Literal["mixed", "by_user"] | None = None
    """Whether a batch keeps a user's rows together; None: where `within_user` compares them."""
    weighting: WeightingConfig = FixedConfig()
    seed: int = 0
