"""What stays the same from epoch to epoch: the rows, the model on its ranks, its loss and its optimisers."""

from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from contract.dataset import EncodedDataset
from contract.errors import ConfigError, DataError
from contract.schema import Schema
from features.batches import BatchReader
from features.read_ahead import enough_decoding_threads
from features.source.filesystems import filesystem_of
from models.losses import RankingLoss
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.sharding import LearningRates, Sharded, shard
from models.table_plan import in_words
from models.table_planner import TableOptions
from pipeline.training.anchor import Anchor, fisher_information
from pipeline.training.balanced_hash import deal_ids
from pipeline.training.data_check import check_rows
from pipeline.training.dense_form import DenseForm, as_it_is
from pipeline.training.precision import precision_of
from pipeline.training.stopping_metric import StoppingMetric
from pipeline.training.teacher import FileTeacher, teacher_of
from pipeline.training.train_config import LEAST_ROWS_OF_A_RANK, TrainConfig
from pipeline.training.training_step import TrainingStep
from pipeline.training.validation import Validation, validate
from pipeline.training.warm_start import Start, carry_over


class TrainingRun:
    """A run's parts, built from its settings and its features; needs a process group."""

    def __init__(
        self,
        schema: Schema,
        model_config: ModelConfig,
        config: TrainConfig,
        features_dir: Path,
        device: torch.device,
        start: Start | None,
    ) -> None:
        """Open the rows, check them, and build the model.

        Raises:
            ConfigError: settings that do not fit the features, the tasks or the number of ranks.
            DataError: too few rows, or labels or weights that cannot be trained on.
        """
        rank, world = dist.get_rank(), dist.get_world_size()
        path = features_dir / "train"
        self.schema, self.device = schema, device
        self.config = config.sized(EncodedDataset.open(path, filesystem_of(str(path))).rows, world)
        text = config.early_stopping.metric if config.early_stopping else "mean"
        _check_tables(config, schema)
        self.stopping_metric = StoppingMetric.of(text, schema.tasks, grouped=bool(schema.user_key))
        self.rows = BatchReader(
            path,
            schema,
            self.config.batch_size,
            seed=config.seed,
            by_user=_by_user(config, schema),
            rank=rank,
            world=world,
            least_rows=self.config.least_rows(world),
            later_than=start.until if start is not None and config.warm.new_rows else None,
            replay=config.warm.replay,
            with_time=config.teacher is not None and config.teacher.predictions is not None,
        )
        if device.type == "cuda":
            enough_decoding_threads()
        _require_rows(self.rows, world)
        checks = check_rows(self.rows, schema, config.task_weights)
        self.remarks = [check.remark for check in checks if check.remark]
        self.stopping_metric = self.stopping_metric.without({check.task for check in checks if not check.rows})
        if config.epochs is None or config.batch_size is None:
            self.remarks.append(
                f"{self.config.epochs} epochs in batches of {self.config.batch_size}, {self.total_steps:,} steps; "
                "what train.epochs and train.batch_size do not say follows from the rows"
            )
        self.held_out = _held_out(features_dir / "valid", schema, 4 * self.config.batch_size)
        loss = RankingLoss(schema.tasks, config.task_weights, config.loss_scale, config.losses, config.within_user)
        loss = loss.to(device)
        self.weighting = config.weighting.build(schema.tasks, loss.task_weights_T).to(device)
        torch.manual_seed(config.seed)
        ranker = Ranker(schema, model_config, torch.device("meta"))
        deal_ids(ranker, path)
        precision = precision_of(config, device)
        ranker.network.to(precision.weights)
        self.sharded: Sharded = shard(ranker, device, _rates(config))
        places = self.sharded.table_places()
        if world > 1 or config.tables or any(place.in_host for place in places):
            self.remarks += in_words(places)
        teacher = teacher_of(config.teacher, self.rows, device) if config.teacher else None
        self.remarks += [teacher.remark] if isinstance(teacher, FileTeacher) else []
        parts = self.sharded, loss, self.weighting, self.config
        self.step = TrainingStep(*parts, autocast=precision.autocast, teacher=teacher)
        graph = self.step.graph
        if device.type == "cuda" and config.capture == "auto" and self.step.obstacle is not None:
            self.remarks.append(f"steps are not captured as CUDA graphs: {self.step.obstacle}")
        self.form = DenseForm(
            self.sharded.ranker.network,
            "on" if graph is not None and config.compile == "graphs" else config.compile,
            device,
            captures=config.captures() and graph is None,
            changed=None if graph is None else graph.forget,
        )

    @property
    def total_steps(self) -> int:
        """Steps of all epochs together."""
        return self.config.epochs * self.rows.steps

    def validate(self) -> Validation:
        """Judge the model as it is on the held-out rows."""
        average = self.step.average
        with nullcontext() if average is None else average.applied(), as_it_is():
            return validate(self.sharded, self.held_out, self.device, self.stopping_metric.metric)

    def start_from(self, start: Start, features_dir: Path) -> None:
        """Go on from what an earlier run learned.

        Raises:
            DataError: its weights do not fit.
            IntegrityError: its checkpoint is damaged.
        """
        warm = self.config.warm
        carried = carry_over(start.run_dir, features_dir, self.sharded, self.weighting, warm)
        if warm.keep_near:
            importance = fisher_information(self.sharded) if warm.keep_near_by == "fisher" else None
            self.step.anchor = Anchor(self.sharded, warm.keep_near, importance)
        if self.step.average is not None:
            self.step.average.begin()
        self.remarks.append(f"starts from {start.run_dir.name}: {carried}; {self.rows.total_rows:,} rows to train on")


def _by_user(config: TrainConfig, schema: Schema) -> bool:
    if config.within_user and not schema.user_key:
        message = "train.within_user compares rows of one user, but data.events names no user: name it, or leave it out"
        raise ConfigError(message)
    return config.batches == "by_user" or (config.batches is None and bool(config.within_user))


def _rates(config: TrainConfig) -> LearningRates:
    return LearningRates(
        network=config.learning_rate,
        gates=config.gate_learning_rate or config.learning_rate,
        embeddings=config.embedding_learning_rate,
        weight_decay=config.weight_decay,
        embedding_decay=config.embedding_weight_decay,
        tables={
            name: TableOptions(each.learning_rate, each.weight_decay, each.optimizer, each.sharding)
            for name, each in config.tables.items()
        },
    )


def _check_tables(config: TrainConfig, schema: Schema) -> None:
    unknown = sorted(set(config.tables) - set(schema.tables()))
    if unknown:
        message = f"train.tables names {unknown[0]!r}; the tables are: {', '.join(schema.tables()) or 'none'}"
        raise ConfigError(message)


def _held_out(path: Path, schema: Schema, batch_size: int) -> BatchReader:
    rank, world = dist.get_rank(), dist.get_world_size()
    reader = BatchReader(path, schema, batch_size, rank=rank, world=world, least_rows=world)
    # Of fewer rows than ranks, each reads all: metrics of rows that are all repeated are the same.
    return BatchReader(path, schema, batch_size) if reader.total_rows < world else reader


def _require_rows(rows: BatchReader, world: int) -> None:
    if rows.total_rows < LEAST_ROWS_OF_A_RANK * world:
        message = (
            f"there are {rows.total_rows} training rows for {world} ranks; each rank needs at least "
            f"{LEAST_ROWS_OF_A_RANK} of a batch: look at `data.split`, or use fewer ranks"
        )
        raise DataError(message)
