"""Training, from encoded Parquet to a checkpoint: one process, or several under torchrun.

``torchrun --nproc-per-node N -m pipeline train CONFIG`` trains on N ranks; `batch_size` is that of all together.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from contract.errors import ConfigError, DataError, TrainingError
from contract.inputs import Batch
from contract.schema import Schema
from features.batches import BatchReader
from models.diagnostics.diagnosis import diagnose
from models.diagnostics.expert_health import ExpertHealth
from models.losses import RankingLoss
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.row_share import RowShare
from models.sharding import LearningRates, Sharded, best_device, process_group, shard
from pipeline.training import expert_record
from pipeline.training.balanced_hash import deal_ids
from pipeline.training.checkpoint import resume
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.data_check import check_rows
from pipeline.training.interruption import Interruption, watch_interruption
from pipeline.training.learning_rate import rate_factor
from pipeline.training.loss_meter import LossMeter
from pipeline.training.precision import use_bf16
from pipeline.training.run_progress import EpochRecord, RunProgress, check_metric, goodness
from pipeline.training.teacher import Teacher
from pipeline.training.train_config import LEAST_ROWS_OF_A_RANK, TrainConfig
from pipeline.training.training_log import TrainingLog
from pipeline.training.training_step import StepResult, TrainingStep, Wishes
from pipeline.training.validation import Validation, validate
from pipeline.training.warm_start import Start, carry_over, keep_encoding

_BOARD_EVERY = 50
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Timed out waiting",
    "Broken pipe",
)
"""What gloo says when another process is gone."""


def train(
    features_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    run_dir: Path,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] | None = None,
    start: Start | None = None,
) -> dict[str, Any]:
    """Train a ranker on the split ``train``, judge each epoch on ``valid``, and keep the best epoch.

    A rerun in the same `run_dir` goes on from its latest checkpoint. Ctrl-c ends the step under way, saves a
    checkpoint and raises KeyboardInterrupt. `say` is told an epoch in a line, `live` what changes all the time. With a
    `start`, training goes on from what that run learned, as `config.warm` says.

    Returns:
        JSON values: ``run_dir``, ``epochs``, ``steps``, ``best_epoch`` and the best epoch's ``metrics`` by task.

    Raises:
        ConfigError: the configuration names a task that does not exist, or a gate that cannot be built.
        DataError: the features cannot be read, or their labels or weights cannot be trained on.
        SchemaMismatchError: the run was trained on other features.
        TrainingError: a loss or a gradient is not finite.
    """
    schema = Schema.load(features_dir)
    check_metric(config, schema.tasks)
    config = config if start is None else config.warmed()
    device = best_device()
    with process_group(device), _other_ranks():
        run = _Run(schema, model_config, config, features_dir, device, start)
        first = dist.get_rank() == 0
        if start is not None:
            carried = carry_over(start.run_dir, features_dir, run.sharded, run.weighting, config.warm)
            run.step.stay_near(config.warm.keep_near)
            run.remarks.append(f"starts from {start.run_dir.name}: {carried}; {run.rows.total_rows:,} rows to train on")
        if first:
            keep_encoding(features_dir, schema, run_dir)
        progress = resume(run_dir, run.sharded, run.weighting, say if first else _silent)
        with (
            CheckpointWriter(run_dir, run.sharded, run.weighting, config.checkpoint) as writer,
            TrainingLog(run_dir, say, live, progress, writes=first) as training_log,
            watch_interruption() as stop,
        ):
            for remark in run.remarks:
                training_log.say(remark)
            while progress.epoch < config.epochs and not progress.stopped:
                progress = run.epoch(progress, training_log, stop, writer)
        return _result(run_dir, progress) | {"until": run.rows.latest_time}


@contextmanager
def _other_ranks() -> Iterator[None]:
    """Say in words that another rank has ended, which torch tells in the words of its sockets."""
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        if world_size() > 1 and any(words in told for words in _LOST):
            message = "another rank has ended, and training cannot go on without it: its own message says why"
            raise TrainingError(message) from error
        raise


def world_size() -> int:
    """How many ranks torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(
        self,
        schema: Schema,
        model_config: ModelConfig,
        config: TrainConfig,
        features_dir: Path,
        device: torch.device,
        start: Start | None,
    ) -> None:
        rank, world = dist.get_rank(), dist.get_world_size()
        self.schema, self.config, self.device = schema, config.on_ranks(world), device
        path, size = features_dir / "train", self.config.batch_size
        self.rows = BatchReader(
            path,
            schema,
            size,
            seed=config.seed,
            by_user=_by_user(config, schema),
            rank=rank,
            world=world,
            least_rows=self.config.least_rows(world),
            later_than=start.until if start is not None and config.warm.new_rows else None,
            replay=config.warm.replay,
        )
        _require_rows(self.rows, world)
        self.remarks = [found.remark for found in check_rows(self.rows, schema) if found.remark]
        self.held_out = _held_out(features_dir / "valid", schema, 4 * size)
        loss = RankingLoss(schema.tasks, config.task_weights, config.loss_scale, config.losses, config.within_user)
        loss = loss.to(device)
        self.weighting = config.weighting.build(schema.tasks, loss.task_weights_T).to(device)
        torch.manual_seed(config.seed)
        ranker = Ranker(schema, model_config, torch.device("meta"))
        deal_ids(ranker, path)
        self.sharded: Sharded = shard(ranker, device, _rates(config))
        teacher = Teacher(config.teacher, schema, device) if config.teacher else None
        bf16 = use_bf16(config, device)
        self.step = TrainingStep(self.sharded, loss, self.weighting, self.config, bf16=bf16, teacher=teacher)

    def epoch(
        self, progress: RunProgress, training_log: TrainingLog, stop: Interruption, writer: CheckpointWriter
    ) -> RunProgress:
        """Train to the epoch's end, validate, write it all down and save."""
        started, first, first_row = time.monotonic(), progress.step, progress.row
        meter = LossMeter(self.schema.tasks, self.device)
        self.sharded.model.train()
        skipped = 0
        places = self.rows.bounds(progress.row)
        for begin, batch in zip(places, self.rows.epoch(progress.epoch, progress.row), strict=True):
            result = self._step(begin, batch, progress, Wishes(stop.asked, writer.is_due(progress)))
            if result.losses is None:
                skipped += 1
                training_log.say(f"skipped a batch: {result.bad}")
            else:
                meter.add(result.losses)
            progress = progress.after_step(self.rows.batch_end(begin))
            speed = (progress.row - first_row) / max(time.monotonic() - started, 1e-9)
            training_log.live(lambda: self._where(progress, meter, speed))  # noqa: B023 it is called at once
            if progress.step % _BOARD_EVERY == 0:
                training_log.scalars({"step/loss": meter.total}, progress.step)
            if result.wishes.stop:
                _stop(progress, training_log, writer)
            elif result.wishes.save and progress.row < self.rows.total_rows:
                writer.save(progress)
        seconds = time.monotonic() - started
        training_log.live(lambda: f"epoch {progress.epoch + 1}: validating")
        meter.join_ranks()
        validation = validate(self.sharded, self.held_out, self.device)
        rows = self.rows.total_rows - first_row
        record = self._record(progress, meter, validation) | {"skipped_batches": skipped}
        record |= {"steps": progress.step - first, "seconds": seconds, "rows_per_second": rows / max(seconds, 1e-9)}
        value = goodness(validation.metrics, self.schema.tasks, self.config)
        progress = progress.after_epoch(record, value, self.config)
        writer.save(progress)
        training_log.epoch(progress)
        self._show_experts(progress, training_log, validation.health)
        return progress

    def _step(self, begin: int, batch: Batch, progress: RunProgress, wishes: Wishes) -> StepResult:
        first, last = self.rows.share(begin)
        repeated, total = self.rows.repeated(begin), self.rows.batch_end(begin) - begin
        share = RowShare(first - begin, last - begin, total, repeated)
        return self.step(batch, share, progress.step, self.config.epochs * self.rows.steps, wishes)

    def _show_experts(self, progress: RunProgress, training_log: TrainingLog, health: ExpertHealth) -> None:
        if self.sharded.ranker.network.levels:
            training_log.image("experts/share of rows", expert_record.picture(health.share), progress)
            training_log.image("experts/mean weight", expert_record.picture(health.weight), progress)
        if progress.stopped or progress.epoch == self.config.epochs:
            for warning in diagnose(health, [task.name for task in self.schema.tasks]):
                training_log.say(f"experts: {warning}")

    def _record(self, progress: RunProgress, meter: LossMeter, validation: Validation) -> EpochRecord:
        trained: EpochRecord = {name: {"loss": loss} for name, loss in meter.tasks().items()}
        return {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train": {"total": {"loss": meter.total}, **trained},
            "penalties": dict(meter.penalties()),
            "valid": {name: dict(values) for name, values in validation.metrics.items()},
            **expert_record.record(validation.health, [task.name for task in self.schema.tasks]),
        }

    def _where(self, progress: RunProgress, meter: LossMeter, rows_per_second: float) -> str:
        """Where training stands: place, speed, time left (without validation), rate, and losses by task."""
        rows, epochs = self.rows.total_rows, self.config.epochs
        left = timedelta(seconds=round(((epochs - progress.epoch) * rows - progress.row) / max(rows_per_second, 1e-9)))
        rate = self.config.learning_rate * rate_factor(self.config, progress.step, epochs * self.rows.steps)
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in meter.tasks().items())
        return (
            f"epoch {progress.epoch + 1}/{epochs}, row {progress.row:,}/{rows:,}, {rows_per_second:,.0f} rows/s, "
            f"{left} left, rate {rate:.2g}, loss {meter.total:.4f} ({losses})"
        )


def _stop(progress: RunProgress, training_log: TrainingLog, writer: CheckpointWriter) -> None:
    writer.save(progress, wait=True)
    training_log.say(f"stopped at step {progress.step}; run again to go on from there")
    raise KeyboardInterrupt


def _silent(text: str) -> None:
    del text


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
    )


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


def _result(run_dir: Path, progress: RunProgress) -> dict[str, Any]:
    best = progress.best.epoch if progress.best is not None else progress.epoch
    record = progress.history[best - 1] if progress.history else {}
    return {
        "run_dir": str(run_dir),
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_epoch": best,
        "metrics": record.get("valid", {}),
    }
