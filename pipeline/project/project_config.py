"""One YAML file a project: where its parts' settings come together."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import ConfigDict, Field, StringConstraints

from contract.errors import ConfigError
from contract.ranking_policy import RankingPolicy
from contract.score import ScoreConfig
from features.feature_config import FeaturesConfig
from models.model_config import ModelConfig
from pipeline.evaluation.alarm_rules import MonitorConfig
from pipeline.evaluation.evaluate import EvaluateConfig
from pipeline.evaluation.quality_gate import QualityConfig
from pipeline.export.post_export import ExportConfig
from pipeline.project.retention import Project, RetentionConfig
from pipeline.training.train_config import TrainConfig
from pipeline.training.tune_config import TuneConfig
from pipeline.yaml_file import Workspace, read_settings
from serving.store.manifest import NAME_PATTERN

ProjectName = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]


class ProjectConfig(Workspace):
    """A project, from raw Parquet to a served model.

    All results go below ``workspace/name``. Relative paths, here and in `data`, start at the current directory.
    """

    model_config = ConfigDict(extra="forbid")

    name: ProjectName
    """The project's name, and the model's name in the store."""
    data: FeaturesConfig
    """Where the raw tables are, which features and labels they give, and how rows are split."""
    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    tune: TuneConfig = TuneConfig()
    """Which settings `moerank tune` searches over."""
    export: ExportConfig = ExportConfig()
    """How the trained model becomes a bundle."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How the model is measured on held-out rows."""
    quality: QualityConfig = QualityConfig()
    """Rules, baselines and an earlier version that a model must pass to be published."""
    monitor: MonitorConfig = MonitorConfig()
    """What is asked of each day of a published model."""
    score: ScoreConfig | RankingPolicy | None = None
    """The combined score by which the server orders candidates, or several by name, and whether it explores; null: the
    mean of the binary tasks, or of all tasks."""
    mirror: str | None = Field(None, pattern="://")
    """The URL of a store, such as ``s3://bucket/models``, to which each published version is copied as well."""
    mirror_delta: bool = False
    """Copy to the mirror only what changed since its current version; servers make the rest from what they have."""
    retention: RetentionConfig = RetentionConfig()
    """How many runs, versions and days of logs to keep."""

    @property
    def root(self) -> Path:
        """Where all that the project makes lies."""
        return self.workspace / self.name

    @property
    def features_dir(self) -> Path:
        """Training Parquet, schema, vocabularies and online tables."""
        return self.root / "features"

    @property
    def days_dir(self) -> Path:
        """How the published versions did, day by day."""
        return self.root / "days"

    @property
    def parts(self) -> Project:
        """Its parts, for sizes and for what may go."""
        return Project(self.root, self.store, self.name, self._own_log())

    @property
    def store(self) -> Path:
        """The model store that `moerank serve` reads."""
        return self.root / "store"

    def _own_log(self) -> Path | None:
        """The folder of served requests that only judges; none where it is trained on, or lies behind a URL."""
        log, trained = self.monitor.served, self.data.events.served
        if log is None or "://" in log or not Path(log).is_dir():
            return None
        folder, read = Path(log).resolve(), None if trained is None else Path(trained).resolve()
        return None if read is not None and (folder in (read, *read.parents) or read in folder.parents) else folder


def read_config(path: Path, overrides: list[str] | None = None) -> ProjectConfig:
    """Read a project's file; `overrides` such as ``train.epochs=2`` win over it.

    Raises:
        ConfigError: naming every key and value that cannot be used, with its path and what is allowed.
    """
    config = read_settings(path, ProjectConfig, overrides=overrides or [])
    _check_tasks(config, path)
    _check_choices(config, path)
    return config


def _check_tasks(config: ProjectConfig, path: Path) -> None:
    """Refuse at once what would be refused only after training: names of tasks that there are not."""
    known = [task.name for task in config.data.tasks]
    named = {
        "train.task_weights": list(config.train.task_weights),
        "quality.rules": [rule.partition(".")[0].strip() for rule in config.quality.rules],
        "monitor.rules": [rule.partition(".")[0].strip() for rule in config.monitor.rules],
        "quality.tasks": list(config.quality.tasks),
        **_score_tasks(config.score),
    }
    wrong = [f"  {key}: no task {task!r}" for key, tasks in named.items() for task in tasks if task not in known]
    if wrong:
        problems = "\n".join(wrong)
        message = f"{path} cannot be used:\n{problems}\n  data.tasks has {', '.join(known)}"
        raise ConfigError(message)


def _score_tasks(score: ScoreConfig | RankingPolicy | None) -> dict[str, list[str]]:
    """The tasks of each formula, by the formula's key in the file."""
    if score is None or isinstance(score, ScoreConfig):
        return {"score.weights": list(score.weights) if score else []}
    return {f"score.formulas.{name}.weights": list(formula.weights) for name, formula in score.formulas.items()}


def _check_choices(config: ProjectConfig, path: Path) -> None:
    """Refuse at once formulas chosen by what is no column; whose column it is, is known when features are built."""
    data = config.data
    columns = {feature.name for feature in data.features} | {history.by for history in data.histories}
    columns |= {column for cross in data.crosses for column in cross.of}
    columns |= {column for aggregate in data.aggregates for column in aggregate.by}
    for name in config.score.by if isinstance(config.score, RankingPolicy) else ():
        if name not in columns:
            message = f"{path} cannot be used:\n  score.by: no feature {name!r}; there are {', '.join(sorted(columns))}"
            raise ConfigError(message)


def write_config(config: ProjectConfig, path: Path) -> None:
    """Write the settings with all defaults and variables filled in, so that a run can be repeated from its own file."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path.write_text(text.replace("$", "$$"), encoding="utf-8")
