"""Training, from encoded Parquet to a checkpoint: one process, or several under torchrun.

``torchrun --nproc-per-node N -m pipeline train CONFIG`` trains on N ranks; `batch_size` is that of each.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from contract.errors import ConfigError
from contract.inputs import Batch
from contract.schema import Schema
from features.batches import BatchReader
from models.diagnostics.diagnosis import diagnose
from models.diagnostics.expert_health import ExpertHealth
from models.losses import RankingLoss
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sharding import LearningRates, Sharded, best_device, process_group, shard
from models.weighting import Shared
from pipeline.training import expert_record
from pipeline.training.balanced_hash import deal_ids
from pipeline.training.checkpoint import resume, save
from pipeline.training.interruption import Interruption, watch_interruption
from pipeline.training.learning_rate import rate_factor
from pipeline.training.loss_meter import LossTally
from pipeline.training.precision import use_bf16
from pipeline.training.run_progress import EpochRecord, RunProgress, check_metric, goodness
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_log import Journal
from pipeline.training.validation import Validation, validate

_BOARD_EVERY = 50


def train(
    features_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    run_dir: Path,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a ranker on the split ``train``, judge each epoch on ``valid``, and keep the best epoch.

    A rerun in the same `run_dir` goes on from its latest checkpoint. Ctrl-c ends the step under way, saves a
    checkpoint and raises KeyboardInterrupt. `say` is told an epoch in a line, `live` what changes all the time.

    Returns:
        JSON values: ``run_dir``, ``epochs``, ``steps``, ``best_epoch`` and the best epoch's ``metrics`` by task.

    Raises:
        ConfigError: the configuration names a task that does not exist, or a gate that cannot be built.
        DataError: the features cannot be read.
        SchemaMismatchError: the run was trained on other features.
        TrainingError: a loss is not finite.
    """
    schema = Schema.load(features_dir)
    check_metric(config, schema.tasks)
    device = best_device()
    with process_group(device):
        run = _Run(schema, model_config, config, features_dir, device)
        progress = resume(run_dir, run.sharded, run.weighting)
        with (
            Journal(run_dir, say, live, progress, writes=dist.get_rank() == 0) as journal,
            watch_interruption() as stop,
        ):
            while progress.epoch < config.epochs and not progress.stopped:
                progress = run.epoch(progress, journal, stop, run_dir)
    return _result(run_dir, progress)


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(
        self, schema: Schema, model_config: ModelConfig, config: TrainConfig, features_dir: Path, device: torch.device
    ) -> None:
        self.schema, self.config, self.device = schema, config, device
        rank, world = dist.get_rank(), dist.get_world_size()
        path, size = features_dir / "train", config.batch_size
        if config.within_user and not schema.user_key:
            message = (
                "train.within_user compares rows of one user, but data.events names no user: name it, or leave it out"
            )
            raise ConfigError(message)
        by_user = config.batches == "by_user" or (config.batches is None and bool(config.within_user))
        self.rows = BatchReader(path, schema, size, seed=config.seed, by_user=by_user, rank=rank, world=world)
        self.held_out = BatchReader(features_dir / "valid", schema, 4 * size, rank=rank, world=world)
        self.bf16 = use_bf16(config, device)
        self.loss = RankingLoss(schema.tasks, config.task_weights, config.loss_scale, config.losses, config.within_user)
        self.loss = self.loss.to(device)
        self.weighting = config.weighting.build(schema.tasks, self.loss.task_weights_T).to(device)
        torch.manual_seed(config.seed)
        rates = LearningRates(
            network=config.learning_rate,
            gates=config.gate_learning_rate or config.learning_rate,
            embeddings=config.embedding_learning_rate,
            weight_decay=config.weight_decay,
            embedding_decay=config.embedding_weight_decay,
        )
        ranker = Ranker(schema, model_config, torch.device("meta"))
        deal_ids(ranker, path)
        self.sharded: Sharded = shard(ranker, device, rates)

    def epoch(self, progress: RunProgress, journal: Journal, stop: Interruption, run_dir: Path) -> RunProgress:
        """Train to the epoch's end, validate, write it all down and save."""
        started, first = time.monotonic(), progress.step
        tally = LossTally(self.schema.tasks, self.device)
        self.sharded.model.train()
        rows = 0
        for batch in self.rows.epoch(progress.epoch, skip=progress.step_in_epoch):
            self._step(batch, progress.step, tally)
            rows += batch.rows * dist.get_world_size()
            progress = progress.after_step()
            journal.live(lambda: self._where(progress, tally))  # noqa: B023 it is called at once
            if progress.step % _BOARD_EVERY == 0:
                journal.scalars({"step/loss": tally.total}, progress.step)
            if _anyone_asked(stop):
                self._stop(progress, journal, run_dir)
        tally.check()
        seconds = time.monotonic() - started
        journal.live(lambda: f"epoch {progress.epoch + 1}: validating")
        self.sharded.synchronise_statistics()
        validation = validate(self.sharded, self.held_out, self.device)
        record = self._record(progress, tally, validation)
        record |= {"steps": progress.step - first, "seconds": seconds, "rows_per_second": rows / max(seconds, 1e-9)}
        value = goodness(validation.metrics, self.schema.tasks, self.config)
        progress = progress.after_epoch(record, value, self.config)
        save(run_dir, self.sharded, self.weighting, progress)
        journal.epoch(progress)
        self._show_experts(progress, journal, validation.health)
        return progress

    def _show_experts(self, progress: RunProgress, journal: Journal, health: ExpertHealth) -> None:
        if self.sharded.ranker.network.levels:
            journal.image("experts/share of rows", expert_record.picture(health.share), progress)
            journal.image("experts/mean weight", expert_record.picture(health.weight), progress)
        if progress.stopped or progress.epoch == self.config.epochs:
            for warning in diagnose(health, [task.name for task in self.schema.tasks]):
                journal.say(f"experts: {warning}")

    def _step(self, batch: Batch, step: int, tally: LossTally) -> None:
        # Seeded by step, dropout falls the same in a run that was interrupted as in one that was not.
        torch.manual_seed((self.config.seed << 40) + step * dist.get_world_size() + dist.get_rank())
        self.sharded.scale_learning_rates(rate_factor(self.config, step, self.config.epochs * self.rows.steps))
        self.sharded.ranker.network.step(step)
        self.sharded.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            output = self.sharded.model(TensorInputs.from_numpy(batch.inputs).to(self.device))
        labels, weights = (torch.from_numpy(a).to(self.device) for a in (batch.labels, batch.weights))
        shared = Shared(output.columns_BD, self.sharded.dense_parameters())
        users = torch.from_numpy(batch.user.view(np.int64)).to(self.device) if self.config.within_user else None
        losses = self.weighting.backward(self.loss(output, labels, weights, users), shared)
        if self.config.gradient_clip:
            self.sharded.clip_gradients(self.config.gradient_clip)
        self.sharded.optimizer.step()
        tally.add(losses)

    def _record(self, progress: RunProgress, tally: LossTally, validation: Validation) -> EpochRecord:
        trained: EpochRecord = {name: {"loss": loss} for name, loss in tally.tasks().items()}
        return {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train": {"total": {"loss": tally.total}, **trained},
            "penalties": dict(tally.penalties()),
            "valid": {name: dict(values) for name, values in validation.metrics.items()},
            **expert_record.record(validation.health, [task.name for task in self.schema.tasks]),
        }

    def _where(self, progress: RunProgress, tally: LossTally) -> str:
        at = f"epoch {progress.epoch + 1}/{self.config.epochs}, step {progress.step_in_epoch}/{self.rows.steps}"
        return f"{at}, loss {tally.total:.4f}"

    def _stop(self, progress: RunProgress, journal: Journal, run_dir: Path) -> None:
        save(run_dir, self.sharded, self.weighting, progress)
        journal.say(f"stopped at step {progress.step}; run again to go on from there")
        raise KeyboardInterrupt


def _by_user(config: TrainConfig, schema: Schema) -> bool:
    if config.within_user and not schema.user_key:
        message = "train.within_user compares a user's rows, but data.events names no user: name it, or leave this out"
        raise ConfigError(message)
    return config.batches == "by_user" or (config.batches is None and bool(config.within_user))


def _anyone_asked(stop: Interruption) -> bool:
    if dist.get_world_size() == 1:
        return stop.asked
    asked = torch.tensor(int(stop.asked))
    dist.all_reduce(asked)
    return bool(asked)


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
