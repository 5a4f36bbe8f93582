"""Checkpoints: one directory per step, written beside and renamed, made with torch.distributed.checkpoint.

``RUN/checkpoint/step-N/`` holds the shards of model and optimisers, and ``checkpoint.json`` with the schema's
fingerprint, the model's configuration and the run's progress; ``RUN/checkpoint/best.json`` names the best step. A
checkpoint of any number of ranks loads on any other. Its index is a pickle: load none that you did not write.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as load_shards

from contract.errors import DataError, IntegrityError
from contract.schema import Schema
from contract.settings import Settings
from contract.sha256 import sha256_of
from models.model_config import ModelConfig
from models.ranker import Ranker
from models.sharding import Sharded
from models.weighting import Weighting
from pipeline.training.run_progress import RunProgress

FOLDER = "checkpoint"
AVERAGE = "average"
"""The part of a checkpoint with averages of the network's weights, which are the model where there are any."""
META_FILE = "checkpoint.json"
BEST_FILE = "best.json"
ASIDE = ".aside"
"""Ends the name of a checkpoint that steps aside for another of the same step."""


class CheckpointMeta(Settings):
    """``checkpoint.json``: what the files beside it belong to, and their sha256 by name."""

    schema_fingerprint: str
    model: ModelConfig
    progress: RunProgress
    files: dict[str, str]


class BestPointer(Settings):
    """``best.json``: the step of the best epoch's checkpoint."""

    step: int


def resume(run_dir: Path, sharded: Sharded, weighting: Weighting, say: Callable[[str], None] = print) -> RunProgress:
    """Load the latest sound checkpoint into a model, optimisers and loss weighting; without one, start over.

    `say` is told of checkpoints that are damaged and passed over.

    Raises:
        SchemaMismatchError: the run was trained on other features.
        IntegrityError: all checkpoints are damaged.
        DataError: the run trains another model.
    """
    _recover(run_dir)
    first_error: IntegrityError | None = None
    for directory in stored(run_dir):
        try:
            progress = _resume_from(directory, sharded, weighting)
        except IntegrityError as error:
            say(f"passed over a damaged checkpoint: {error}")
            first_error = first_error or error
        else:
            return progress
    if first_error is not None:
        raise first_error
    return RunProgress()


def _recover(run_dir: Path) -> None:
    """Bring back a checkpoint that stood aside when a process was killed, before any rank looks for the latest."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        for aside in (run_dir / FOLDER).glob(f".*{ASIDE}"):
            target = aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))
            if not target.exists():
                aside.rename(target)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def _resume_from(directory: Path, sharded: Sharded, weighting: Weighting) -> RunProgress:
    meta = read_meta(directory)
    sharded.ranker.schema.require(meta.schema_fingerprint, str(directory))
    if meta.model != sharded.ranker.config:
        message = f"{directory} holds another model than is configured; train in another directory, or delete it"
        raise DataError(message)
    for _, optimizer in sharded.optimizer.optimizers:
        # Adam has no state before its first step, and only what exists is loaded.
        if not optimizer.state_dict()["state"]:
            optimizer.init_state()
    state = state_of(sharded, weighting)
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
    model = ranker.state_dict()
    _load({"model": model}, directory)
    averages = {name: tensor for name, tensor in model.items() if f"{AVERAGE}.{name}" in _names(directory)}
    if averages:
        _load({AVERAGE: averages}, directory)
    ranker.load_state_dict(model)
    return ranker.eval()


def weights_id(run_dir: Path) -> str:
    """What tells a run's weights from others under the same path: a digest of the checkpoint that `load_ranker` loads.

    Raises:
        DataError: there is no checkpoint.
    """
    directory = best(run_dir) or latest(run_dir)
    if directory is None:
        message = f"there is no checkpoint in {run_dir / FOLDER}; train with `moerank train CONFIG`"
        raise DataError(message)
    return sha256_of(directory / META_FILE)


def latest(run_dir: Path) -> Path | None:
    """The checkpoint with most steps."""
    return next(iter(stored(run_dir)), None)


def stored(run_dir: Path) -> list[Path]:
    """All finished checkpoints, the one with most steps first."""
    checkpoints = [path for path in (run_dir / FOLDER).glob("step-*") if (path / META_FILE).is_file()]
    return sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def best(run_dir: Path) -> Path | None:
    """The checkpoint that ``best.json`` names, if it is there."""
    try:
        pointer = BestPointer.model_validate_json((run_dir / FOLDER / BEST_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    directory = run_dir / FOLDER / name_of(pointer.step)
    return directory if (directory / META_FILE).is_file() else None


def sound(run_dir: Path) -> tuple[Path, CheckpointMeta]:
    """The best checkpoint of a finished run to go on from or, where it is damaged, the latest that is not.

    Raises:
        DataError: there is no checkpoint.
        IntegrityError: all checkpoints are damaged.
    """
    chosen, first_error = best(run_dir), None
    for directory in dict.fromkeys([*([chosen] if chosen else []), *stored(run_dir)]):
        try:
            return directory, read_meta(directory)
        except IntegrityError as error:
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    message = f"there is no checkpoint in {run_dir} to start from; set train.start_from: none"
    raise DataError(message)


def read_meta(directory: Path) -> CheckpointMeta:
    """Read ``checkpoint.json`` and check the files beside it.

    Raises:
        IntegrityError: it cannot be read, or a file is missing or changed.
    """
    try:
        meta = CheckpointMeta.model_validate_json((directory / META_FILE).read_bytes())
        changed = set(meta.files.items()) ^ set(hashes_of(directory).items())
    except (OSError, ValidationError) as error:
        message = f"checkpoint {directory} cannot be read ({error}); delete it and train again"
        raise IntegrityError(message) from error
    if changed:
        message = f"{min(changed)[0]} in {directory} is not what was written there; delete it and train again"
        raise IntegrityError(message)
    return meta


def state_of(sharded: Sharded, weighting: Weighting) -> dict[str, Any]:
    """Everything that training changes, as it lies on this rank."""
    return {
        "model": sharded.model.state_dict(),
        "optimizer": sharded.optimizer.state_dict(),
        "weighting": weighting.state_dict(),
        **sharded.beside,
    }


def _names(directory: Path) -> set[str]:
    """The tensors that a checkpoint holds."""
    return set(FileSystemReader(directory).read_metadata().state_dict_metadata)


def _load(state: dict[str, Any], directory: Path) -> None:
    """Read into the state's tensors, and put its other values in their places.

    It is flattened here: where this rank lacks a key, such as the optimiser's state of a table that is whole on another
    rank, torch's own planner takes the checkpoint for one of torch 2.3 and asks for keys that none has.
    """
    flat, places = flatten_state_dict(state)
    planner = DefaultLoadPlanner(flatten_state_dict=False)
    try:
        with quietly():
            reader = FileSystemReader(directory)
            load_shards(flat, storage_reader=reader, planner=planner, no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, ValueError, CheckpointException) as error:
        message = f"checkpoint {directory} cannot be loaded ({str(error).splitlines()[0]}); delete it and train again"
        raise IntegrityError(message) from error
    for name, value in flat.items():
        if not isinstance(value, Tensor):
            set_element(state, places[name], value)


def name_of(step: int) -> str:
    """The directory of a step's checkpoint."""
    return f"step-{step}"


def hashes_of(directory: Path) -> dict[str, str]:
    """The sha256 of a checkpoint's files by name."""
    hashes = {}
    for path in directory.iterdir():
        if path.name != META_FILE:
            hashes[path.name] = sha256_of(path)
    return hashes


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings that torch.distributed.checkpoint has of its own internals, and of one process."""
    logger = logging.getLogger("torch.distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
