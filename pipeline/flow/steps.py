"""The steps from raw Parquet to a published model; each is reused while what it was made from is unchanged.

A run's directory is named by the stamp of what it trains from, so that the same settings on the same data are the same
run: an interrupted one goes on from its last checkpoint, a finished one is not repeated.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from contract.dataset import DATASET_MANIFEST
from contract.digests import code_digest, digest_of
from contract.errors import ConfigError, DataError
from contract.graph_names import GOLDEN_FILE, MODEL_FILE
from contract.ranking_policy import require_context
from contract.schema import SCHEMA_FILE, Schema
from contract.settings import Settings
from features.build import build
from features.online.given_values import context_names
from pipeline.console import Progress, say
from pipeline.evaluation.result import EVALUATION_FILE, Evaluation
from pipeline.export.export_run import export_run
from pipeline.export.post_export import ExportConfig
from pipeline.flow.data_facts import data_settings, source_facts
from pipeline.flow.starting_point import StartingPoint, starting_point
from pipeline.project.project_config import ProjectConfig, read_config, write_config
from pipeline.release.against_current import CurrentTest, paired_with_current
from pipeline.release.publish_run import publish_run
from pipeline.release.shipping import Shipping
from pipeline.report.evaluate_and_report import About, evaluate_and_report, headline
from pipeline.report.report_page import REPORT_FILE, read_history
from pipeline.step_cache import STEP_FILE, StepRecord, once, read_record
from pipeline.training.teacher import teacher_id
from pipeline.training.train import train, world_size

CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.json"
_WITHOUT_IT = (
    "the others go on, and a model still answers for it, but does not tell rows apart as a version served before may: "
    "a score should not count on it, and a rule of `quality` that names it may refuse the version"
)
FEATURE_FILES = (*(f"{split}/{DATASET_MANIFEST}" for split in ("train", "valid", "test")), SCHEMA_FILE, "online")


@dataclass(frozen=True)
class Run:
    """One training run: its settings and its directory."""

    config: ProjectConfig
    directory: Path

    @classmethod
    def open(cls, directory: Path) -> "Run":
        """A run by its directory.

        Raises:
            ConfigError: it holds no ``config.yaml``, or one that this version does not understand.
        """
        return cls(read_config(directory / CONFIG_FILE), directory)

    def exported_as(self, **changes: str | bool | None) -> "Run":
        """The run with other settings of `export`, kept in its file for the steps that follow; None: as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        if not given:
            return self
        export = ExportConfig.model_validate(self.config.export.model_dump() | given)
        config = self.config.model_copy(update={"export": export})
        write_config(config, self.directory / CONFIG_FILE)
        return Run(config, self.directory)

    @property
    def export_dir(self) -> Path:
        """What becomes the bundle."""
        return self.directory / "export"

    @property
    def evaluation_dir(self) -> Path:
        """Metrics and report."""
        return self.directory / "evaluation"

    @property
    def publication_dir(self) -> Path:
        """The record of what was published."""
        return self.directory / "publication"

    @property
    def held_out(self) -> Path:
        """The encoded rows to judge on: the test split, or where that is empty, the validation split."""
        record = required(self.config.features_dir, "moerank features CONFIG")
        rows = record.result["rows"]
        split = "test" if isinstance(rows, dict) and rows.get("test") else "valid"
        return self.config.features_dir / split


def required(directory: Path, command: str) -> StepRecord:
    """The record of a finished step.

    Raises:
        DataError: the step is not finished there; the message names the command that does it.
    """
    record = read_record(directory)
    if record is None:
        message = f"there is nothing finished in {directory}; make it with `{command}`"
        raise DataError(message)
    return record


def build_features(config: ProjectConfig) -> StepRecord:
    """Raw Parquet to encoded Parquet, schema, vocabularies and online tables."""
    stamp = digest_of("features", config.data.model_dump(mode="json"), source_facts(config.data), code_digest(build))

    def work(progress: Progress) -> dict[str, Any]:
        built = build(config.data, config.features_dir, progress)
        progress.say(built.reuse)
        for task, why in built.unlearned.items():
            progress.say(f"task {task!r} learns nothing: {why}; {_WITHOUT_IT}")
        settings = data_settings(config.data)
        return {
            "rows": dict(built.rows),
            "features": built.features,
            "fingerprint": built.fingerprint,
            "reuse": built.reuse,
            "days": {"reused": built.days_reused, "built": built.days_built},
            "unlearned": built.unlearned,
            "settings": settings,
        }

    return once("features", config.features_dir, stamp, work, FEATURE_FILES, in_place=False)


def train_model(config: ProjectConfig) -> Run:
    """Training Parquet to a checkpoint; an interrupted run goes on from its last one.

    Raises:
        DataError: the features are not built yet.
        TrainingError: training cannot go on.
    """
    run, stamp, origin = _training_run(config)
    if run.directory.is_dir() and origin is not None and run.directory == origin.directory:
        say(f"train: {run.directory.name} has seen these rows; nothing is newer")
        return run
    run.directory.mkdir(parents=True, exist_ok=True)
    write_config(config, run.directory / CONFIG_FILE)

    def work(progress: Progress) -> dict[str, Any]:
        start = origin.start if origin is not None else None
        paths = config.features_dir, config.model, config.train, run.directory
        trained = train(*paths, progress.say, progress.live, start)
        upstream = required(config.features_dir, "moerank features CONFIG")
        generation = 0 if origin is None else origin.generation + 1
        settings = digest_of(_settings(config))
        return {**trained, "generation": generation, "features": upstream.stamp, "settings": settings}

    once("train", run.directory, stamp, work, (CONFIG_FILE, "checkpoint"))
    return run


def join_training(config: ProjectConfig) -> None:
    """Train as another rank than the first, which alone keeps the records; see `train_model`."""
    run, stamp, origin = _training_run(config)
    record = read_record(run.directory)
    if (record is None or record.stamp != stamp) and (origin is None or run.directory != origin.directory):
        start = origin.start if origin is not None else None
        train(config.features_dir, config.model, config.train, run.directory, start=start)


def _settings(config: ProjectConfig) -> dict[str, Any]:
    """What changes the result, and no more: on another number of ranks, the same run goes on."""
    settings: dict[str, Any] = {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.identity(world_size()),
    }
    # A teacher that was trained again under the same path teaches something else.
    return settings | ({"teacher": teacher_id(config.train.teacher)} if config.train.teacher else {})


def _training_run(config: ProjectConfig) -> tuple[Run, str, StartingPoint | None]:
    upstream = required(config.features_dir, "moerank features CONFIG")
    # What would be refused at publication only, after all the work.
    require_context(config.score, context_names(Schema.load(config.features_dir)))
    if upstream.result.get("settings") != data_settings(config.data):
        message = (
            f"the features in {config.features_dir} were built with other `data:` settings; "
            "build them again with `moerank features CONFIG`"
        )
        raise ConfigError(message)
    settings = _settings(config)
    origin = starting_point(config)
    if origin is not None and origin.has_seen(config, upstream):
        if origin.fits(upstream) and origin.record.result.get("settings") == digest_of(settings):
            return Run(config, origin.directory), origin.record.stamp, origin
        origin = origin.again(config)
    parts = [settings, upstream.stamp, code_digest(train)]
    # Training from nothing is the same run whether it was asked for or fell due.
    stamp = digest_of("train", *parts) if origin is None else digest_of("train", *parts, origin.record.stamp)
    return Run(config, config.root / "training" / stamp), stamp, origin


def export_model(run: Run) -> StepRecord:
    """Checkpoint to everything of a bundle but its evaluation: graph, golden requests, schema and online tables.

    Raises:
        DataError: the run is not trained yet.
        ExportError: the graph does not answer as the model does.
        SchemaMismatchError: the features were rebuilt with another schema since.
    """
    upstream = required(run.directory, "moerank train CONFIG")
    settings = run.config.export
    stamp = digest_of("export", settings.model_dump(mode="json"), upstream.stamp, code_digest(export_run))

    def work(progress: Progress) -> dict[str, Any]:
        features, recipe = run.config.features_dir, run.config.data
        return export_run(run.directory, features, recipe, run.held_out, run.export_dir, settings, progress)

    run.export_dir.mkdir(exist_ok=True)
    record = once("export", run.export_dir, stamp, work, (MODEL_FILE, SCHEMA_FILE, GOLDEN_FILE))
    if record.result["warning"]:
        say(f"export: note that {record.result['warning']}")
    return record


def evaluate_model(run: Run) -> StepRecord:
    """The exported graph on held-out rows: metrics with intervals, and the report.

    Raises:
        DataError: nothing is exported yet, or the rows cannot be judged.
    """
    upstream = required(run.export_dir, "moerank export RUN")
    settings = run.config.evaluate.model_dump(mode="json")
    stamp = digest_of("evaluate", settings, upstream.stamp, str(run.held_out), code_digest(evaluate_and_report))

    def work(progress: Progress) -> dict[str, Any]:
        judged = evaluate_and_report(
            run.export_dir,
            run.held_out,
            run.config.features_dir / "train",
            run.evaluation_dir,
            run.config.evaluate,
            about=About(run.config.name, run.directory / HISTORY_FILE, _experts(run), _facts(run)),
            progress=progress,
        )
        return {"rows": judged.evaluation.rows, "metrics": judged.evaluation.headline()}

    run.evaluation_dir.mkdir(exist_ok=True)
    return once("evaluate", run.evaluation_dir, stamp, work, (EVALUATION_FILE, REPORT_FILE))


def _experts(run: Run) -> dict[str, JsonValue]:
    """The best epoch's expert health: how often each was selected, with which mean weight, and what is wrong."""
    trained = required(run.directory, "moerank train CONFIG")
    best = read_history(run.directory / HISTORY_FILE)[trained.result["best_epoch"] - 1]
    facts: dict[str, JsonValue] = {}
    for name in ("share", "weight"):
        by_task = best.get(f"expert_{name}")
        facts[name] = list(by_task.values()) if isinstance(by_task, dict) else []
    facts |= {name: best.get(f"expert_{name}", []) for name in ("zeros", "scale", "warnings")}
    facts["by_task"] = best.get("experts", {})
    return facts


def _facts(run: Run) -> dict[str, str | int | float]:
    """What the report says about the run."""
    built = required(run.config.features_dir, "moerank features CONFIG")
    rows = built.result["rows"]
    known: dict[str, str | int | float] = {"run": run.directory.name, "gate": run.config.model.gate.name}
    if isinstance(rows, dict):
        known |= {f"{split} rows": count for split, count in rows.items() if isinstance(count, int)}
    return known


class Published(Settings):
    """Where everything of a published run lies, and how good it is."""

    run: Path
    bundle: Path
    store: Path
    report: Path
    tensorboard: Path
    metrics: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return self.model_dump(mode="json")

    def lines(self) -> list[str]:
        """For a person: the quality, where things lie, and what to do next."""
        return [
            *headline(Evaluation.load(self.report.parent)),
            f"report:      {self.report}",
            f"bundle:      {self.bundle}",
            f"TensorBoard: {self.tensorboard}",
            f"serve it:    moerank serve {self.store}",
        ]


def publish_model(run: Run, *, delta: bool | int | None = None) -> Published:
    """The quality gate, then a new current version in the store.

    `delta` is what the mirror is shipped: what changed since that version, or (True) since its current one; False: all
    files; None: as the project says.

    Raises:
        ConfigError: a delta is asked for, and the project has no mirror, or the mirror no such base.
        DataError: nothing is evaluated yet.
        QualityGateError: a rule failed; nothing was published.
    """
    config = run.config
    shipping = Shipping.of(config, delta)
    exported = required(run.export_dir, "moerank export RUN")
    judged = required(run.evaluation_dir, "moerank publish RUN")
    settings = [None if part is None else part.model_dump(mode="json") for part in (config.quality, config.score)]
    code = [code_digest(publish_run)]
    if config.quality.no_worse_than == "current":
        code.append(code_digest(paired_with_current))
    stamp = digest_of("publish", settings, exported.stamp, judged.stamp, *code)

    def work(progress: Progress) -> dict[str, Any]:
        progress("asking the quality gate, copying and checking the files")
        test = CurrentTest(())
        if config.quality.no_worse_than == "current":
            progress("comparing with the current version")
            test = paired_with_current(config, run.evaluation_dir, run.held_out)
        facts = exported.result, test.findings, test.compared
        return {"bundle": str(publish_run(config, run.export_dir, run.evaluation_dir, *facts))}

    run.publication_dir.mkdir(exist_ok=True)
    before = read_record(run.publication_dir)
    if before is not None and not Path(before.result["bundle"]).is_dir():
        (run.publication_dir / STEP_FILE).unlink()  # someone removed it from the store
    record = once("publish", run.publication_dir, stamp, work, (), in_place=False)
    if shipping is not None:
        shipping.ship(int(Path(str(record.result["bundle"])).name), run.directory / "mirror")
    evaluation = Evaluation.load(run.evaluation_dir)
    return Published(
        run=run.directory,
        bundle=Path(str(record.result["bundle"])),
        store=config.store,
        report=run.evaluation_dir / REPORT_FILE,
        tensorboard=run.directory / "tensorboard",
        metrics=evaluation.headline(),
    )
