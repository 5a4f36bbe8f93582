"""Which earlier run training goes on from: ``train.start_from`` as a run's directory."""

from pathlib import Path
from typing import NamedTuple

from contract.columns import TIME
from contract.dataset import EncodedDataset
from contract.errors import ConfigError, DataError, IntegrityError, ModelNotFoundError
from features.incremental.splits import SPLIT_NAMES, TRAIN
from pipeline.console import say
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.step_cache import StepRecord, read_record
from pipeline.training.checkpoint import sound
from pipeline.training.grow import can_grow
from pipeline.training.train import world_size
from pipeline.training.train_config import LEAST_ROWS_OF_A_RANK
from pipeline.training.warm_start import Start
from serving.store.local_store import current
from serving.store.manifest import MANIFEST_FILE


class StartingPoint(NamedTuple):
    """The run to start from, its record, and how many trainings on it stands away from nothing."""

    directory: Path
    record: StepRecord

    @property
    def generation(self) -> int:
        """0 for a run that was trained from nothing."""
        recorded = self.record.result.get("generation", 0)
        return recorded if isinstance(recorded, int) else 0

    @property
    def start(self) -> Start:
        """For `pipeline.training.train`."""
        until = self.record.result.get("until")
        return Start(self.directory, until if isinstance(until, int) else None)

    def has_seen(self, config: ProjectConfig, features: StepRecord) -> bool:
        """Whether it was trained on all rows there are: of the same build, or of another that has no later ones.

        Files that were rewritten, late rows of days gone by and another version of the program make a new build, and a
        night that has nothing newer must not fail.
        """
        if self.record.result.get("features") == features.stamp:
            return True
        until = self.start.until
        if until is None or not config.train.warm.new_rows:
            return False
        times = EncodedDataset.open(config.features_dir / SPLIT_NAMES[TRAIN]).read([TIME])[TIME].to_numpy()
        return int((times > until).sum()) < LEAST_ROWS_OF_A_RANK * world_size()

    def again(self, config: ProjectConfig) -> "StartingPoint | None":
        """Where training starts from that has other settings and no newer rows; None: from nothing.

        Raises:
            ConfigError: this run was named, and only newer rows are to be trained on.
        """
        warm = config.train.warm
        if config.train.start_from == "current":
            # As without a model that is served, but where that one is to grow on the rows that made it.
            return self if warm.grow is not None and not warm.new_rows else None
        if warm.new_rows:
            message = (
                f"there are no newer rows than those of {self.directory}, which was trained with other settings or "
                "features; to go on with it on the same rows, set train.warm.new_rows: false, and to train on them "
                "from nothing, train.start_from: none"
            )
            raise ConfigError(message)
        return self

    def fits(self, features: StepRecord) -> bool:
        """Whether its model takes what these features encode."""
        if self.record.result.get("features") == features.stamp:
            return True
        return sound(self.directory)[1].schema_fingerprint == features.result.get("fingerprint")


def starting_point(config: ProjectConfig) -> StartingPoint | None:
    """The run that `train.start_from` names; None: train from nothing, on the first night or because it is due.

    Raises:
        ConfigError: there is no such run, or it is not finished.
    """
    where = config.train.start_from
    if where == "none":
        return None
    start = _current_run(config) if where == "current" else _run_at(config, Path(where))
    if start is not None and where == "current" and _other_model(start, config):
        say(f"train: the model that is served ({start.directory.name}) is of another form; training from nothing")
        return None
    every = config.train.warm.scratch_every
    due = start is not None and every is not None and (start.generation + 1) % every == 0
    return None if due else start


def _other_model(start: StartingPoint, config: ProjectConfig) -> bool:
    """Whether a model is neither the recipe's nor one that is to grow into it."""
    try:
        before = read_config(start.directory / "config.yaml").model
    except ConfigError:  # settings that this version does not know
        return True
    grows = config.train.warm.grow is not None and can_grow(before, config.model)
    return before != config.model and not grows


def _run_at(config: ProjectConfig, path: Path) -> StartingPoint:
    if (path / MANIFEST_FILE).is_file():
        return _run_of_bundle(config, path)
    record = read_record(path)
    if record is None or not (path / "checkpoint").is_dir():
        message = (
            f"train.start_from is {str(path)!r}, which is not a finished run; it may be none, current, the directory "
            "of a run (runs/NAME/training/RUN) or of a published version (runs/NAME/store/NAME/VERSION)"
        )
        raise ConfigError(message)
    return StartingPoint(path, record)


def _current_run(config: ProjectConfig) -> StartingPoint | None:
    try:
        version = current(config.store, config.name)
    except ModelNotFoundError:
        return None
    try:
        run = _run_of_bundle(config, config.store / config.name / str(version))
        sound(run.directory)
    except (ConfigError, DataError, IntegrityError) as error:
        # Runs are removed by age, and a night must not fail for want of an old one.
        say(f"train: training from nothing: {error}")
        return None
    return run


def _run_of_bundle(config: ProjectConfig, bundle: Path) -> StartingPoint:
    """The run that was published as a version: a bundle holds no optimiser, and its tables may be rounded."""
    for published in (config.root / "training").glob("*/publication"):
        record, run = read_record(published), read_record(published.parent)
        if record is not None and run is not None and Path(str(record.result["bundle"])).resolve() == bundle.resolve():
            return StartingPoint(published.parent, run)
    message = (
        f"no run below {config.root / 'training'} was published as {bundle}; training starts from the run of a "
        "version, which is gone: set train.start_from to another run, or to none"
    )
    raise ConfigError(message)
