"""Training's configuration: what a user writes under ``train:`` in the YAML file."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from contract.errors import ConfigError
from contract.settings import Settings
from models.losses import LossScale, PointwiseConfig, WithinUserConfig
from models.weighting import FixedConfig, WeightingConfig
from pipeline.training.seeds import Seed

LearningRate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
LEAST_ROWS_OF_A_RANK = 2
"""Batch norm cannot take the variance of fewer."""
_SHORT = 8
"""A last batch of less than this part of a batch joins the one before: so few rows would be a step of mostly noise."""


_EPOCHS = ((500_000, 5), (5_000_000, 2))
"""Below so many training rows, so many passes."""
_LARGE = 10_000_000
_OUTSIDE = ("checkpoint", "batch_size_per_rank", "profile_steps", "tracking")
"""Settings that do not change what is learned."""


class EarlyStopping(Settings):
    """When to stop before the last epoch; the best epoch is kept."""

    patience: Annotated[int, Field(ge=1)] = 2
    """Validations without a better value after which training stops."""
    metric: str = "mean"
    """A task's name, or ``mean``: over tasks, the AUC of binary ones, and of regression ones the share of the label's
    variance that is explained. ``TASK.METRIC`` or ``mean.METRIC`` is any metric of the evaluation, such as
    ``click.gauc``, ``mean.ne``, ``buy.log_loss`` or ``buy.calibration``."""


class ValidationConfig(Settings):
    """When to validate besides the end of each epoch; each validation counts for `early_stopping`, and may be best."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """After so many steps."""
    every_rows: Annotated[int, Field(ge=1)] | None = None
    """After so many rows."""


class AverageConfig(Settings):
    """An average of the network's weights over steps, which is validated, saved as the model and served."""

    name: Literal["ema", "mean"] = "ema"
    """``ema``: an exponential moving average; ``mean``: the equal mean of all steps from `start` on."""
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """How much of ``ema`` stays at a step."""
    start: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of all steps after which averaging begins."""


class TableTraining(Settings):
    """How one embedding table is trained, and where it lies on several ranks."""

    learning_rate: LearningRate | None = None
    """Null: `embedding_learning_rate`."""
    weight_decay: NotNegative | None = None
    """Null: `embedding_weight_decay`."""
    optimizer: Literal["row_wise_adagrad", "adagrad", "sgd"] = "row_wise_adagrad"
    """``adagrad`` keeps a sum of squares for each number of a row instead of one for the row: as much memory
    as the table."""
    sharding: Literal["table_wise", "row_wise"] | None = None
    """Whole on one rank, or by rows on all; null: as the planner finds cheaper."""


class CheckpointConfig(Settings):
    """When training saves what it has, besides the end of each epoch; none of it changes the result."""

    every_minutes: Annotated[float, Field(gt=0.0)] | None = 10.0
    """Save when so much time has passed since the last save."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Save after so many steps."""
    keep_last: Annotated[int, Field(ge=1)] = 2
    """How many of the latest stay, besides the best epoch's: a damaged latest one falls back to the one before."""


class TrackingConfig(Settings):
    """Where the numbers of a run go besides ``history.json`` and TensorBoard; none of it changes the result."""

    mlflow: str | None = None
    """The URI of an MLflow server, such as ``http://127.0.0.1:5000``; null: none. Needs ``moerank[mlflow]``."""
    experiment: str = "moerank"
    """The experiment in MLflow."""


class TeacherConfig(Settings):
    """Learn from another model's answers as well as from labels: of a run on the same features, or of any file."""

    run: Path | None = None
    """The directory of another run; its best epoch teaches."""
    predictions: Path | None = None
    """In place of `run`, a Parquet or CSV file of predictions, by whatever made them: LightGBM, an ensemble, last
    night's model (`moerank predict`), or a column of the log itself. Rows are known by user, item and time; those
    without a prediction learn from their labels alone."""
    columns: dict[str, str] = {}
    """What the file's columns are called, such as ``{user: user_id, prediction.click: lightgbm_click}``; where not
    named, as `moerank predict` calls them."""
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """The share of its answers in the loss; the labels have the rest."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.run is None) == (self.predictions is None):
            message = "a teacher is either a `run` or a file of `predictions`: give one of them"
            raise ValueError(message)
        return self


class WarmConfig(Settings):
    """How training goes on from an earlier model, where `start_from` names one."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the new rows; more than one unlearns what generalises, where ids are features."""
    new_rows: bool = True
    """Train only on rows of the training split that are later than the earlier model's."""
    replay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of earlier rows among those that are trained on."""
    optimizer: bool = True
    """Keep the optimisers' state."""
    reset: tuple[Literal["gates", "towers", "tables"], ...] = ()
    """Parts that start fresh; with ``tables``, a pass over rows that were seen before cannot overfit them."""
    learning_rate_factor: LearningRate = 1.0
    """Times all learning rates."""
    keep_near: NotNegative = 0.0
    """Weight of half the squared distance of the network's weights from the earlier ones."""
    keep_near_by: Literal["l2", "fisher"] = "l2"
    """``l2``: all weights alike; ``fisher``: each by its Fisher information (EWC), which the earlier run's Adam holds,
    in units of its mean."""
    scratch_every: Annotated[int, Field(ge=1)] | None = None
    """Every so many trainings, counted from the last one that did, start from nothing."""

    grow: Literal["copy", "drop", "mask"] | None = None
    """Start a mixture from a smaller model: from a shared bottom, from one expert (EvoMoE's first phase), or from fewer
    experts. ``copy``: experts are copies (sparse upcycling); ``drop``: with `grow_share` of their hidden units drawn
    again (drop-upcycling); ``mask``: with `grow_share` of their weights at zero (EvoMoE). Gates start fresh."""
    grow_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """The share that ``drop`` and ``mask`` take; the first copy of each source stays whole."""

    @model_validator(mode="after")
    def _check_state(self) -> Self:
        if self.keep_near_by == "fisher" and not self.optimizer:
            message = (
                "keep_near_by: fisher reads the earlier run's optimiser: set optimizer to true, or keep_near_by to l2"
            )
            raise ValueError(message)
        return self


class TrainConfig(Settings):
    """How a ranker is trained."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """The most passes over the training rows; null: 5 below 500,000 rows, 2 below 5 million, else 1."""
    batch_size: Annotated[int, Field(ge=2)] | None = None
    """The rows of a step over all ranks together, so that the same file trains the same model on any number of them;
    null: the power of two next to an 80th of the training rows, from 64 to 1024; from 10 million rows on 4096."""
    batch_size_per_rank: Annotated[int, Field(ge=2)] | None = None
    """In place of `batch_size`, the rows of each rank."""
    learning_rate: LearningRate = 1e-3
    """Of the network."""
    gate_learning_rate: LearningRate | None = None
    """Of the gates; null: `learning_rate`."""
    embedding_learning_rate: LearningRate = 0.02
    """Of row-wise Adagrad, which trains the embeddings."""
    weight_decay: NotNegative = 1e-4
    """Of the network."""
    embedding_weight_decay: NotNegative = 0.0
    """Of the embeddings: a row loses its rate times this of itself in each step that reads it."""
    schedule: Literal["one_cycle", "cosine", "exponential", "step", "constant"] = "one_cycle"
    """How the rates change: ``one_cycle`` warms up and then falls to nothing by the last epoch."""
    schedule_final: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """What share of the full rates ``cosine`` and ``exponential`` end at."""
    schedule_milestones: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = (0.5, 0.75)
    """Where ``step`` lowers the rates, as shares of all steps."""
    schedule_drop: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """What ``step`` multiplies the rates by at each milestone."""
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """The share of all steps in which ``one_cycle`` warms up."""
    gradient_clip: NotNegative = 0.0
    """The largest norm of the network's gradient; 0: no limit."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """When to stop before the last epoch; null: never."""
    validation: ValidationConfig = ValidationConfig()
    """When to validate within an epoch."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """How many batches make an update of the network, by the mean of their gradients; tables are updated by each."""
    average: AverageConfig | None = None
    """An average of the network's weights over steps; null: the last weights."""
    tables: dict[str, TableTraining] = {}
    """How single tables are trained, by a table's name."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    """What the network (never a gate) computes in; ``auto``: bfloat16 where the device has it, else float16 on CUDA,
    else float32. ``fp64`` keeps runs on other numbers of ranks together to rounding; see docs/training.md."""
    bf16: Literal["auto", "off", "on"] = "auto"
    """An older name: ``on`` is `precision: bf16`, ``off`` is `precision: fp32`."""
    loss_scale: LossScale = "entropy"
    """``entropy`` measures each task's loss in what its base rate alone would lose, so that rare tasks count as much as
    others; ``none`` leaves cross-entropies in nats."""
    task_weights: dict[str, NotNegative] = {}
    """The weights of these losses by task; 1 where not named."""
    losses: dict[str, PointwiseConfig] = {}
    """A task's own loss by its name, in place of cross-entropy or squared error."""
    within_user: dict[str, WithinUserConfig] = {}
    """A term by a binary task's name that compares rows of one user, on top of the task's own loss."""
    batches: Literal["mixed", "by_user"] | None = None
    """Whether a batch keeps a user's rows together; None: where `within_user` compares them."""
    teacher: TeacherConfig | None = None
    """A run or a file of predictions to learn from as well."""
    weighting: WeightingConfig = FixedConfig()
    """How the weights of tasks change while training goes on."""
    start_from: str = "none"
    """``none``; ``current``: the model that the store serves; or the path of a run or of a published version."""
    warm: WarmConfig = WarmConfig()
    """How training continues an earlier model."""
    on_bad_batch: Literal["stop", "skip"] = "stop"
    """What to do when the loss or gradient of a batch is not finite."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When training saves its state."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the run's numbers go."""
    compile: Literal["off", "on", "graphs", "auto"] = "off"
    """Whether the network is compiled, which rounds otherwise, and with ``graphs`` captured as CUDA graphs; ``auto``:
    on a card, what makes steps fastest."""
    capture: Literal["auto", "off"] = "auto"
    """Whether a step is captured as one CUDA graph; ``auto``: on a card, where nothing in the model or its training
    stands against it."""
    profile_steps: Annotated[int, Field(ge=0)] = 0
    """Record so many steps as a trace in the run's directory, profile/trace.json."""
    seed: Seed = 0
    """Of weights, batches and dropout."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size_per_rank is not None and self.batch_size is not None:
            message = "batch_size (of all ranks) and batch_size_per_rank cannot both be given: leave one out"
            raise ValueError(message)
        if self.compile == "graphs" and not self.captures():
            message = (
                "compile: graphs writes each step's gradients over those of the step before: set accumulate to 1 and "
                "weighting to fixed, or compile to on"
            )
            raise ValueError(message)
        if self.weighting.name != "fixed" and (self.accumulate > 1 or self.precision == "fp16"):
            message = (
                f"weighting {self.weighting.name} looks at the gradients of single batches: set accumulate to 1, and "
                "precision to another than fp16, or weighting to fixed"
            )
            raise ValueError(message)
        return self

    def captures(self) -> bool:
        """Whether a step's gradients are used up in it, so that CUDA graphs may write the next step's over them."""
        return self.accumulate == 1 and self.weighting.name == "fixed"

    def sized(self, rows: int, world: int) -> "SizedConfig":
        """The same training with `epochs` and `batch_size` as they are for so many training rows on `world` ranks.

        Raises:
            ConfigError: the batch is too small for so many ranks.

        Example:
            >>> small, large = TrainConfig().sized(34_000, 1), TrainConfig().sized(10_000_000, 1)
            >>> (small.epochs, small.batch_size), (large.epochs, large.batch_size)
            ((5, 512), (1, 4096))
        """
        size = self.batch_size_per_rank * world if self.batch_size_per_rank else self.batch_size or batch_for(rows)
        if size < LEAST_ROWS_OF_A_RANK * world:
            message = (
                f"train.batch_size is {size}, of all {world} ranks together; each needs at least "
                f"{LEAST_ROWS_OF_A_RANK} rows: set it to {LEAST_ROWS_OF_A_RANK * world} or more, or use fewer ranks"
            )
            raise ConfigError(message)
        known = {"epochs": self.epochs or epochs_for(rows), "batch_size": size, "batch_size_per_rank": None}
        return SizedConfig.model_construct(**{**dict(self), **known})

    def warmed(self) -> "TrainConfig":
        """The same training where it goes on from an earlier model: its epochs and rates."""
        factor = self.warm.learning_rate_factor
        rates = {
            "learning_rate": self.learning_rate * factor,
            "gate_learning_rate": (self.gate_learning_rate or self.learning_rate) * factor,
            "embedding_learning_rate": self.embedding_learning_rate * factor,
        }
        return self.model_copy(update={"epochs": self.warm.epochs, **rates})

    def identity(self, world: int) -> dict[str, Any]:
        """The settings that change what is learned on `world` ranks, as plain values."""
        size = self.batch_size_per_rank * world if self.batch_size_per_rank else self.batch_size
        return self.model_dump(mode="json", exclude=set(_OUTSIDE)) | {"batch_size": size}


class SizedConfig(TrainConfig):
    """A training whose epochs and batch are known; see `TrainConfig.sized`."""

    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=2)] = 1024

    def least_rows(self, world: int) -> int:
        """How few rows a last batch may have; fewer join the batch before it."""
        return max(LEAST_ROWS_OF_A_RANK * world, self.batch_size // _SHORT)


def batch_for(rows: int) -> int:
    """The batch for so many training rows: the power of two next to an 80th of them, from 64 to 1,024.

    Small logs need many steps more than they need quiet gradients. From 10 million rows on it is 4,096.

    Example:
        >>> [batch_for(rows) for rows in (3_000, 34_000, 80_000, 1_000_000, 100_000_000)]
        [64, 512, 1024, 1024, 4096]
    """
    return 4096 if rows >= _LARGE else min(max(2 ** round(math.log2(max(rows, 1) / 80)), 64), 1024)


def epochs_for(rows: int) -> int:
    """The passes over so many training rows: as long as ids are features, more overfit (the one-epoch effect).

    Source: Zhang et al. 2022, "Towards Understanding the Overfitting Phenomenon of Deep Click-Through Rate Models".

    Example:
        >>> [epochs_for(rows) for rows in (3_000, 34_000, 1_000_000, 10_000_000)]
        [5, 5, 2, 1]
    """
    return next((passes for bound, passes in _EPOCHS if rows < bound), 1)
