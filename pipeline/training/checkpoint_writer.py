"""Saves a run's state in a thread while training goes on: a copy in memory is all that training waits for.

Each checkpoint is written beside, forced to the disk with its directory, and renamed: it is there whole or not at all.
"""

import copy
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata
from torch.distributed._shard.sharded_tensor.shard import Shard
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_shards
from torch.distributed.remote_device import _remote_device

from contract.errors import TrainingError
from contract.files import TEMPORARY_PREFIX, flush, flush_tree, write_text
from models.sharding import TIMEOUT, Sharded
from models.weighting import Weighting
from pipeline.training.checkpoint import (
    ASIDE,
    BEST_FILE,
    FOLDER,
    META_FILE,
    BestPointer,
    CheckpointMeta,
    hashes_of,
    name_of,
    quietly,
    state_of,
    stored,
)
from pipeline.training.run_progress import RunProgress
from pipeline.training.train_config import CheckpointConfig

_SECONDS_A_MINUTE = 60
M = TypeVar("M", ShardedTensorMetadata, ShardMetadata)


class CheckpointWriter:
    """Writes the checkpoints of one run, one at a time; every rank has one."""

    def __init__(self, run_dir: Path, sharded: Sharded, weighting: Weighting, config: CheckpointConfig) -> None:
        """Sweep what killed processes left behind, and make the folder."""
        self.folder = run_dir / FOLDER
        self.sharded, self.weighting, self.config = sharded, weighting, config
        self._alone = dist.get_world_size() == 1
        # A group of its own: its collectives must not mix with those of training.
        self._group = None if self._alone else dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._last_time, self._last_step = time.monotonic(), -1
        if dist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            _sweep(run_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written; an error of it is raised unless another is under way."""
        try:
            if error is None:
                self.wait()
        finally:
            self._thread.shutdown()

    def is_due(self, progress: RunProgress) -> bool:
        """Whether a save in the middle of an epoch is due: by the first rank's clock, and none is being written."""
        self._raise_failure()
        if dist.get_rank() != 0 or self._pending is not None:
            return False
        if self._last_step < 0:
            self._last_step = progress.step
        minutes, steps = self.config.every_minutes, self.config.every_steps
        by_time = minutes is not None and time.monotonic() - self._last_time >= minutes * _SECONDS_A_MINUTE
        return by_time or (steps is not None and progress.step - self._last_step >= steps)

    def save(self, progress: RunProgress, *, wait: bool = False) -> None:
        """Copy the state and begin to write it; `wait` until it is on the disk.

        Raises:
            TrainingError: this checkpoint, or the one before it, could not be written; earlier ones are as they were.
        """
        self.wait()
        state = _copied(state_of(self.sharded, self.weighting))
        self._pending = self._thread.submit(self._write, state, progress)
        self._last_time, self._last_step = time.monotonic(), progress.step
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            TrainingError: it could not be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _raise_failure(self) -> None:
        if self._pending is not None and self._pending.done():
            self.wait()

    def _write(self, state: dict[str, Any], progress: RunProgress) -> None:
        target = self.folder / name_of(progress.step)
        partial = self.folder / f".{target.name}.partial"
        try:
            self._on_first_rank(lambda: shutil.rmtree(partial, ignore_errors=True))
            writer = FileSystemWriter(partial, overwrite=False, sync_files=True)
            with quietly():
                save_shards(state, storage_writer=writer, process_group=self._group, no_dist=self._alone)
            self._on_first_rank(lambda: self._finish(partial, target, progress))
        except (OSError, CheckpointException) as error:
            raise self._failure(error, partial, progress, state) from error

    def _finish(self, partial: Path, target: Path, progress: RunProgress) -> None:
        meta = CheckpointMeta(
            schema_fingerprint=self.sharded.ranker.schema.fingerprint(),
            model=self.sharded.ranker.config,
            progress=progress,
            files=hashes_of(partial),
        )
        write_text(meta.model_dump_json() + "\n", partial / META_FILE)
        flush_tree(partial)
        aside = self.folder / f".{target.name}{ASIDE}"
        if target.exists():
            # A run that was interrupted right after an epoch writes the same step twice.
            target.rename(aside)
        try:
            partial.rename(target)
        except OSError:
            if aside.exists():
                aside.rename(target)
            raise
        flush(self.folder)
        shutil.rmtree(aside, ignore_errors=True)
        keep = stored(self.folder.parent)[: self.config.keep_last]
        if progress.best is not None:
            keep.append(self.folder / name_of(progress.best.step))
            write_text(BestPointer(step=progress.best.step).model_dump_json() + "\n", self.folder / BEST_FILE)
        for path in set(stored(self.folder.parent)).difference(keep):
            shutil.rmtree(path)

    def _failure(
        self, error: BaseException, partial: Path, progress: RunProgress, state: dict[str, Any]
    ) -> TrainingError:
        free = shutil.disk_usage(self.folder).free
        shutil.rmtree(partial, ignore_errors=True)
        reason = _first_reason(error)
        return TrainingError(
            f"the checkpoint of step {progress.step} could not be written to {self.folder}: {reason} "
            f"({free / 1e6:,.1f} MB were free, about {_size(state) / 1e6:,.1f} MB are needed); the checkpoints before "
            "it are as they were: make room, and run again to go on from the last one"
        )

    def _on_first_rank(self, work: Callable[[], None]) -> None:
        if dist.get_rank() == 0:
            work()
        if not self._alone:
            dist.barrier(self._group)


def _sweep(run_dir: Path) -> None:
    """Remove what a killed process was writing: names that begin with a dot, which no reader takes."""
    for path in (*(run_dir / FOLDER).glob(".*"), *run_dir.glob(f"{TEMPORARY_PREFIX}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _copied(value: Any) -> Any:
    """The same state in memory of its own, so that training may go on changing the model's."""
    if isinstance(value, ShardedTensor):
        metadata = on_host(value.metadata())
        shards = [Shard(_copied(shard.tensor), on_host(shard.metadata)) for shard in value.local_shards()]
        group = value._process_group  # noqa: SLF001 - torch has no public way to copy a sharded tensor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ShardedTensor._init_from_local_shards_and_global_metadata(  # noqa: SLF001
                shards, metadata, process_group=group
            )
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(each) for each in value)
    return value


def on_host(metadata: M) -> M:
    """The same where shards lie in the memory of their ranks' hosts: a shard elsewhere than it says is refused."""
    copied = copy.deepcopy(metadata)
    for shard in copied.shards_metadata if isinstance(copied, ShardedTensorMetadata) else [copied]:
        if isinstance(shard.placement, _remote_device):
            shard.placement = _remote_device(f"rank:{shard.placement.rank()}/cpu")
    return copied


def _size(value: Any) -> int:
    if isinstance(value, ShardedTensor):
        return sum(_size(shard.tensor) for shard in value.local_shards())
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0


def _first_reason(error: BaseException) -> str:
    """The machine's own words of an error, of the first rank that had one."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).splitlines()[0]
