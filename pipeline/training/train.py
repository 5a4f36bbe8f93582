"""Training, from encoded Parquet to a checkpoint: one process, or several under torchrun.

``torchrun --nproc-per-node N -m pipeline train CONFIG`` trains on N ranks; `batch_size` is that of all together.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from contract.errors import LostRankError
from contract.schema import Schema
from models.model_config import ModelConfig
from models.sharding import best_device, process_group
from pipeline.training.checkpoint import resume
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.epoch_loop import EpochLoop
from pipeline.training.host_memory import freed_memory_kept
from pipeline.training.interruption import watch_interruption
from pipeline.training.profiling import StepProfiler
from pipeline.training.run_progress import Best, RunProgress
from pipeline.training.trackers import trackers
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_log import Say, TrainingLog
from pipeline.training.training_run import TrainingRun
from pipeline.training.warm_start import Start, keep_encoding

_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Timed out waiting",
    "Broken pipe",
)
"""What gloo says when another process is gone."""


@freed_memory_kept()  # around the call, whose model is gone when memory is given back
def train(
    features_dir: Path,
    model_config: ModelConfig,
    config: TrainConfig,
    run_dir: Path,
    say: Callable[[str], None] = print,
    live: Callable[[str], None] | None = None,
    start: Start | None = None,
    after_epoch: Callable[[RunProgress], None] | None = None,
) -> dict[str, Any]:
    """Train a ranker on the split ``train``, judge each epoch on ``valid``, and keep the best epoch.

    A rerun in the same `run_dir` goes on from its latest checkpoint. Ctrl-c ends the step under way, saves a
    checkpoint and raises KeyboardInterrupt. `say` is told an epoch in a line, `live` what changes all the time. With a
    `start`, training goes on from what that run learned, as `config.warm` says. `after_epoch` is told how far training
    has come; what it raises ends training there.

    Returns:
        JSON values: ``run_dir``, ``epochs``, ``steps``, ``best_epoch``, the best epoch's ``metrics`` by task, and the
        ``value`` of `early_stopping`'s metric there.

    Raises:
        ConfigError: the configuration names a task that does not exist, or a gate that cannot be built.
        DataError: the features cannot be read, or their labels or weights cannot be trained on.
        SchemaMismatchError: the run was trained on other features.
        TrainingError: a loss or a gradient is not finite.
    """
    schema = Schema.load(features_dir)
    config = config if start is None else config.warmed()
    device = best_device()
    with process_group(device), _other_ranks():
        run = TrainingRun(schema, model_config, config, features_dir, device, start)
        first = dist.get_rank() == 0
        if start is not None:
            run.start_from(start, features_dir)
        if first:
            keep_encoding(features_dir, schema, run_dir)
        progress = resume(run_dir, run.sharded, run.weighting, say if first else _silent)
        with (
            CheckpointWriter(run_dir, run.sharded, run.weighting, config.checkpoint) as writer,
            _log(run, run_dir, say if first else None, live, progress) as training_log,
            watch_interruption() as stop,
            closing(StepProfiler(run_dir, config.profile_steps if first else 0)) as profiler,
        ):
            for remark in run.remarks:
                training_log.say(remark)
            loop = EpochLoop(run, progress, training_log, stop, writer, profiler)
            while progress.epoch < run.config.epochs and not progress.stopped:
                progress = loop.epoch()
                if after_epoch is not None:
                    after_epoch(progress)
        return _result(run_dir, progress) | {"until": run.rows.latest_time}


def _log(run: TrainingRun, run_dir: Path, say: Say | None, live: Say | None, progress: RunProgress) -> TrainingLog:
    """The first rank's log, or that of another rank, which writes nothing (`say` None)."""
    tracked = trackers(run_dir, run.config.tracking, progress.step) if say is not None else []
    model = run.sharded.ranker.config.model_dump(mode="json")
    settings = {"train": run.config.model_dump(mode="json"), "model": model}
    return TrainingLog(run_dir, say or _silent, live, tracked, settings, writes=say is not None)


@contextmanager
def _other_ranks() -> Iterator[None]:
    """Say in words that another rank has ended, which torch tells in the words of its sockets."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if world_size() > 1 and any(words in text for words in _LOST):
            message = (
                "another rank has ended, and training cannot go on without it; if it left no message, something "
                "outside ended it, such as the system for lack of memory. The same command goes on from the last "
                "checkpoint"
            )
            raise LostRankError(message) from error
        raise


def world_size() -> int:
    """How many ranks torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _silent(text: str) -> None:
    del text


def _result(run_dir: Path, progress: RunProgress) -> dict[str, Any]:
    best = progress.best
    return {
        "run_dir": str(run_dir),
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_epoch": progress.epoch if best is None else best.epoch,
        "metrics": {} if best is None else _metrics(progress, best),
        "value": None if best is None else best.value,
    }


def _metrics(progress: RunProgress, best: Best) -> Any:
    # Checkpoints of earlier versions tell the best epoch, but not its metrics.
    return best.metrics or progress.history[best.epoch - 1].get("valid", {})
