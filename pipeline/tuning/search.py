"""Trials: settings drawn from the space by Optuna, trained, judged each epoch, and kept in SQLite.

A trial's directory is named by its settings, so that one that was interrupted goes on from its last checkpoint.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from contract.digests import digest_of
from contract.errors import ConfigError, DataError, MoerankError
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.checkpoint import FOLDER
from pipeline.training.run_progress import RunProgress
from pipeline.training.train import train
from pipeline.training.tune_config import SearchRange, TuneConfig

DATABASE = "study.db"
WHY = "why"
"""The attribute of a failed trial that says what was wrong."""
_WARM_UP_EPOCHS = 1
Values = Mapping[str, JsonValue]


class Search:
    """One search: a recipe with a space, and its trials so far in a database."""

    def __init__(self, recipe: Path, overrides: list[str], directory: Path, name: str) -> None:
        """Open the study `name` below `directory`, or begin it.

        Raises:
            ConfigError: an end or a choice of the space that the recipe does not take.
        """
        self.recipe, self.overrides, self.directory = recipe, overrides, directory
        self.base = read_config(recipe, overrides)
        self._check_space()
        self.recipe_values = self._recipe_values()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directory.mkdir(parents=True, exist_ok=True)
        with _study(directory, name, self.tune, 0) as study:
            if not study.trials and self.recipe_values is not None:
                study.enqueue_trial(_as_drawn(self.recipe_values, self.tune))
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                # Its process is gone. The same settings come next; their directory holds what was trained of them.
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)
        self.name = name

    @property
    def tune(self) -> TuneConfig:
        """The space and how to search it."""
        return self.base.tune

    @property
    def metric(self) -> str:
        """What trials are ranked by."""
        stopping = self.base.train.early_stopping
        return stopping.metric if stopping else "mean"

    def trials(self) -> list[FrozenTrial]:
        """All finished trials, by number; interrupted ones, which were tried again, are left out."""
        with _study(self.directory, self.name, self.tune, 0) as study:
            finished = study.get_trials(deepcopy=False)
        return [t for t in finished if t.state in _ENDED or (t.state == TrialState.FAIL and WHY in t.user_attrs)]

    def importances(self) -> dict[str, float]:
        """The share of each setting in what sets good trials apart (PED-ANOVA); empty for fewer than four trials."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if len(complete) < _FEWEST_FOR_IMPORTANCE or len({trial.value for trial in complete}) == 1:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with _study(self.directory, self.name, self.tune, 0) as study:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)

    def best(self) -> FrozenTrial:
        """The best trial that ran to its end.

        Raises:
            DataError: there is none; it says what the last one failed of.
        """
        trials = self.trials()
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if not complete:
            why = trials[-1].user_attrs.get(WHY, "it was pruned") if trials else "there was none"
            message = f"no trial ran to its end, so there is nothing to choose from; the last one: {why}"
            raise DataError(message)
        return max(complete, key=lambda trial: trial.value or 0.0)

    def run(self, features: Path, say: Callable[[str], None], live: Callable[[str], None] | None = None) -> FrozenTrial:
        """Draw and train the next trial; a fault of its settings is kept with it."""
        with _study(self.directory, self.name, self.tune, len(self.trials())) as study:
            trial = study.ask()
            values = drawn(trial, self.tune)
            say(f"trial {trial.number}: {in_words(values)}")
            try:
                value = self._train(trial, values, features, live)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
            except MoerankError as error:
                trial.set_user_attr(WHY, str(error))
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, value)
            return study.trials[trial.number]

    def settings(self, values: Values) -> ProjectConfig:
        """The recipe with these values."""
        return read_config(self.recipe, [*self.overrides, *as_overrides(values)])

    def values(self, trial: FrozenTrial) -> dict[str, JsonValue]:
        """What a trial set."""
        return {path: _value(self.tune.space[path], each) for path, each in trial.params.items()}

    def is_recipe(self, values: Values) -> bool:
        """Whether these values are the recipe's own."""
        return values == self.recipe_values

    def _train(
        self, trial: optuna.Trial, values: Values, features: Path, live: Callable[[str], None] | None
    ) -> float:  # fmt: skip
        config = self.settings(values)
        run_dir = self.directory / self.name / digest_of(dict(values))
        run_dir.mkdir(parents=True, exist_ok=True)

        def after_epoch(progress: RunProgress) -> None:
            if progress.best is not None:
                trial.report(progress.best.value, progress.epoch)
            if not progress.stopped and progress.best is not None and trial.should_prune():
                raise optuna.TrialPruned

        trained = train(features, config.model, config.train, run_dir, _silent, live, after_epoch=after_epoch)
        shutil.rmtree(run_dir / FOLDER)
        trial.set_user_attr("epoch", trained["best_epoch"])
        trial.set_user_attr("metrics", trained["metrics"])
        return float(trained["value"])

    def _recipe_values(self) -> dict[str, JsonValue] | None:
        """The recipe's own values, to be tried first; None where one of them cannot be drawn."""
        values: dict[str, JsonValue] = {}
        for path, each in self.tune.space.items():
            value = _at(self.base.model_dump(mode="json"), path)
            # A choice such as {name: softmax} is the recipe's where it comes to the same with all defaults.
            same = [choice for choice in each.choices or () if self.settings({path: choice}) == self.base]
            if not same and not each.holds(value):
                return None
            values[path] = same[0] if same else value
        return values

    def _check_space(self) -> None:
        if not self.tune.space:
            message = (
                f"{self.recipe} has nothing to search over; give it, for example:\n"
                "tune:\n  space:\n    train.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}"
            )
            raise ConfigError(message)
        for path, each in self.tune.space.items():
            for value in each.choices if each.choices is not None else (each.low, each.high):
                self.settings({path: value})


_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_FEWEST_FOR_IMPORTANCE = 4


def drawn(trial: optuna.Trial, tune: TuneConfig) -> dict[str, JsonValue]:
    """Values of all settings of the space."""
    return {path: _draw(trial, path, each) for path, each in tune.space.items()}


def as_overrides(values: Values) -> list[str]:
    """As the command line takes them.

    Example:
        >>> as_overrides({"train.learning_rate": 0.002, "model.tower_widths": [16]})
        ['train.learning_rate=0.002', 'model.tower_widths=[16]']
    """
    return [f"{path}={json.dumps(value)}" for path, value in values.items()]


def in_words(values: Values) -> str:
    """For a person; numbers in four digits."""
    shown = {path: f"{value:.4g}" if isinstance(value, float) else json.dumps(value) for path, value in values.items()}
    return ", ".join(f"{path} {value}" for path, value in shown.items())


@contextmanager
def _study(directory: Path, name: str, tune: TuneConfig, trials: int) -> Iterator[optuna.Study]:
    """The study; `trials` have ended, so that a search that goes on draws other values than it began with."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{(directory / DATABASE).absolute()}")
    first = tune.before_pruning
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if tune.prune:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=first, n_warmup_steps=_WARM_UP_EPOCHS)
    sampler = optuna.samplers.TPESampler(n_startup_trials=first, seed=trials)
    try:
        yield optuna.create_study(
            storage=storage, sampler=sampler, pruner=pruner, study_name=name, direction="maximize", load_if_exists=True
        )
    finally:
        storage.engine.dispose()


def _draw(trial: optuna.Trial, path: str, each: SearchRange) -> JsonValue:
    if each.choices is not None:
        # Optuna stores texts and numbers alone: lists and blocks go as JSON.
        return _value(each, trial.suggest_categorical(path, [json.dumps(choice) for choice in each.choices]))
    if isinstance(each.low, int) and isinstance(each.high, int):
        return trial.suggest_int(path, each.low, each.high, log=each.log)
    return trial.suggest_float(path, float(each.low or 0.0), float(each.high or 0.0), log=each.log)


def _value(each: SearchRange, value: Any) -> JsonValue:
    parsed: JsonValue = json.loads(value) if each.choices is not None else value
    return parsed


def _as_drawn(values: Values, tune: TuneConfig) -> dict[str, Any]:
    return {path: value if tune.space[path].choices is None else json.dumps(value) for path, value in values.items()}


def _at(settings: Any, path: str) -> JsonValue:
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    setting: JsonValue = settings
    return setting


def _silent(text: str) -> None:
    del text
