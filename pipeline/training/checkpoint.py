"""Checkpoints: one directory a step, written beside and renamed, made with torch.distributed.checkpoint.

``RUN/checkpoint/step-N/`` holds the shards of model and optimisers, and ``checkpoint.json`` with the schema's
fingerprint, the model's configuration and the run's progress; ``RUN/checkpoint/best.json`` names the best step. A
checkpoint of any number of ranks loads on any other. Its index is a pickle: load none that you did not write.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import ValidationError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from contract.errors import DataError, IntegrityError
from contract.files import sha256_of, write_text
from contract.schema import Schema
from contract.settings import Settings
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.sharding import Sharded
from models.weighting import Weighting
from pipeline.training.run_progress import RunProgress

FOLDER = "checkpoint"
_META_FILE = "checkpoint.json"
_BEST_FILE = "best.json"


class CheckpointMeta(Settings):
    """``checkpoint.json``: what the files beside it belong to, and their sha256 by name."""

    schema_fingerprint: str
    model: ModelConfig
    progress: RunProgress
    files: dict[str, str]


class _BestPointer(Settings):
    step: int


def save(run_dir: Path, sharded: Sharded, weighting: Weighting, progress: RunProgress) -> None:
    """Write a checkpoint of all ranks, then drop all others but the best.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints stay as they were.
    """
    folder = run_dir / FOLDER
    target = folder / _name(progress.step)
    partial = folder / f".{target.name}.partial"
    _on_first_rank(lambda: shutil.rmtree(partial, ignore_errors=True))
    state = _state(sharded, weighting)
    with _quiet():
        save_shards(state, storage_writer=FileSystemWriter(partial, overwrite=False, sync_files=True))
    _on_first_rank(lambda: _finish(partial, target, sharded.ranker, progress))


def resume(run_dir: Path, sharded: Sharded, weighting: Weighting) -> RunProgress:
    """Load the latest checkpoint into a model, optimisers and loss weighting; without one, start from the beginning.

    Raises:
        SchemaMismatchError: the run was trained on other features.
        IntegrityError: the checkpoint is damaged.
        DataError: the run trains another model.
    """
    directory = latest(run_dir)
    if directory is None:
        return RunProgress()
    meta = read_meta(directory)
    sharded.ranker.schema.require(meta.schema_fingerprint, str(directory))
    if meta.model != sharded.ranker.config:
        message = f"{directory} holds another model than is configured; train in another directory, or delete it"
        raise DataError(message)
    for _, optimizer in sharded.optimizer.optimizers:
        # Adam has no state before its first step, and only what exists is loaded.
        if not optimizer.state_dict()["state"]:
            optimizer.init_state()
    state = _state(sharded, weighting)
    _load(state, directory)
    sharded.model.load_state_dict(state["model"])
    sharded.optimizer.load_state_dict(state["optimizer"])
    weighting.load_state_dict(state["weighting"])
    return meta.progress


def load_ranker(run_dir: Path, schema: Schema) -> Ranker:
    """The best epoch's ranker (without validation: the latest) on the CPU, with whole tables.

    Raises:
        SchemaMismatchError: the run was trained on other features.
        IntegrityError: the checkpoint is damaged.
        DataError: there is no checkpoint.
    """
    directory = best(run_dir) or latest(run_dir)
    if directory is None:
        message = f"there is no checkpoint in {run_dir / FOLDER}; train with `moerank train CONFIG`"
        raise DataError(message)
    meta = read_meta(directory)
    schema.require(meta.schema_fingerprint, str(directory))
    ranker = Ranker(schema, meta.model)
    state = {"model": ranker.state_dict()}
    _load(state, directory)
    ranker.load_state_dict(state["model"])
    return ranker.eval()


def latest(run_dir: Path) -> Path | None:
    """The checkpoint with most steps."""
    found = [path for path in (run_dir / FOLDER).glob("step-*") if (path / _META_FILE).is_file()]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def best(run_dir: Path) -> Path | None:
    """The checkpoint that ``best.json`` names, if it is there."""
    try:
        pointer = _BestPointer.model_validate_json((run_dir / FOLDER / _BEST_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    directory = run_dir / FOLDER / _name(pointer.step)
    return directory if (directory / _META_FILE).is_file() else None


def read_meta(directory: Path) -> CheckpointMeta:
    """Read ``checkpoint.json`` and check the files beside it.

    Raises:
        IntegrityError: it cannot be read, or a file is missing or changed.
    """
    try:
        meta = CheckpointMeta.model_validate_json((directory / _META_FILE).read_bytes())
        changed = set(meta.files.items()) ^ set(_hashes(directory).items())
    except (OSError, ValidationError) as error:
        message = f"checkpoint {directory} cannot be read ({error}); delete it and train again"
        raise IntegrityError(message) from error
    if changed:
        message = f"{min(changed)[0]} in {directory} is not what was written there; delete it and train again"
        raise IntegrityError(message)
    return meta


def _finish(partial: Path, target: Path, ranker: Ranker, progress: RunProgress) -> None:
    meta = CheckpointMeta(
        schema_fingerprint=ranker.schema.fingerprint(),
        model=ranker.config,
        progress=progress,
        files=_hashes(partial),
    )
    write_text(meta.model_dump_json() + "\n", partial / _META_FILE)
    # A run that was interrupted right after an epoch writes the same step twice.
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    keep = {target.name}
    if progress.best is not None:
        keep.add(_name(progress.best.step))
        write_text(_BestPointer(step=progress.best.step).model_dump_json() + "\n", target.parent / _BEST_FILE)
    for path in target.parent.glob("step-*"):
        if path.name not in keep:
            shutil.rmtree(path)


def _state(sharded: Sharded, weighting: Weighting) -> dict[str, Any]:
    return {
        "model": sharded.model.state_dict(),
        "optimizer": sharded.optimizer.state_dict(),
        "weighting": weighting.state_dict(),
    }


def _load(state: dict[str, Any], directory: Path) -> None:
    try:
        with _quiet():
            load_shards(state, storage_reader=FileSystemReader(directory), no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, ValueError, CheckpointException) as error:
        message = f"checkpoint {directory} cannot be loaded ({str(error).splitlines()[0]}); delete it and train again"
        raise IntegrityError(message) from error


def _on_first_rank(work: Callable[[], None]) -> None:
    if dist.get_rank() == 0:
        work()
    dist.barrier()


def _name(step: int) -> str:
    return f"step-{step}"


def _hashes(directory: Path) -> dict[str, str]:
    hashes = {}
    for path in directory.iterdir():
        if path.name != _META_FILE:
            hashes[path.name] = sha256_of(path)
    return hashes


@contextmanager
def _quiet() -> Iterator[None]:
    # torch.distributed.checkpoint warns of its own internals, and of running on one process.
    logger = logging.getLogger("torch.distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
