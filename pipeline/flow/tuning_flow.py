"""The third flow: a search over a recipe's settings, a Prefect task a trial, and the test of what it found."""

from pathlib import Path

from prefect import flow, task

from contract.digests import code_digest, digest_of
from contract.files import exclusive
from contract.schema import Schema
from pipeline.console import progress_of, say
from pipeline.flow import artifacts, steps
from pipeline.flow.flows import features, logged, run_name
from pipeline.flow.steps import required
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.train import train
from pipeline.tuning.over_seeds import Metrics, PairedDifference, compare_seeds, judge_run
from pipeline.tuning.results import Tuned, trial_figures, write_results
from pipeline.tuning.search import Search, as_overrides

FOLDER = "tuning"
"""Below the project's directory: the trials' database, their directories and the page."""


@task(name="trial", task_run_name="trial")
@logged
def run_trial(search: Search, features_dir: Path) -> str:
    """Draw settings, train with them, and keep what came of it; the line that tells it."""
    with progress_of("tune") as progress:
        figures = trial_figures(search, search.run(features_dir, progress.say, progress.live))
        value = "" if figures.value is None else f", {search.metric} {figures.value:.4f}"
        line = f"trial {figures.number}: {figures.state}{value}{figures.why and ': '}{figures.why}"
        progress.say(line)
    return line


@task(name="seeds", task_run_name="seeds")
@logged
def compare_over_seeds(search: Search, config: Path, overrides: list[str]) -> tuple[list[PairedDifference], str]:
    """Train the recipe and the best trial's settings with the same seeds, and test the difference; on which rows."""
    values = search.values(search.best())
    project = search.base
    rows = steps.Run(project, project.root).held_out
    judged = "the test rows"
    if rows.name == "valid":
        judged = "the validation rows, for want of test rows; they chose the settings, which favours the tuned ones"
    if search.is_recipe(values):
        return [], judged
    tuned: list[Metrics] = []
    recipe: list[Metrics] = []
    for seed in range(project.train.seed, project.train.seed + project.tune.seeds):
        for metrics, given in ((recipe, overrides), (tuned, [*overrides, *as_overrides(values)])):
            metrics.append(_judged(read_config(config, [*given, f"train.seed={seed}"]), rows))
    return compare_seeds(recipe, tuned), judged


def _judged(config: ProjectConfig, rows: Path) -> Metrics:
    run = steps.train_model(config)
    return judge_run(run.directory, rows, Schema.load(config.features_dir))


@flow(name="moerank-tune", flow_run_name=run_name)
def tune_model(config: Path, overrides: list[str] | None = None, trials: int | None = None) -> Tuned:
    """Search over the settings that the YAML file `config` names under `tune`.

    Trials that have ended stay in the database: the same command goes on where it stopped.

    Args:
        config: The project's file.
        overrides: Settings that win over the file's, such as ``tune.seeds=3``.
        trials: How many trials in all; without it the file's.

    Raises:
        ConfigError: the file has no space, or one that it does not take.
        DataError: no trial ran to its end.
        MoerankError: another step failed.
    """
    given = list(overrides or [])
    project = read_config(config, given)
    with exclusive(project.root):
        features(project)
        search = open_search(config, given)
        while len(search.trials()) < (trials or project.tune.trials):
            run_trial(search, project.features_dir)
        seeds, judged = compare_over_seeds(search, config, given)
        tuned = write_results(search, seeds, judged)
    artifacts.keep_search(project, tuned)
    return tuned


def open_search(config: Path, overrides: list[str]) -> Search:
    """The search of this recipe on the features as they are built; another recipe or space is another search.

    Raises:
        ConfigError: the file has no space, or one that it does not take.
    """
    project = read_config(config, overrides)
    upstream = required(project.features_dir, "moerank features CONFIG")
    settings = [part.model_dump(mode="json") for part in (project.model, project.train)]
    space = project.tune.model_dump(mode="json", include={"space"})
    name = digest_of("tune", settings, space, upstream.stamp, code_digest(train))
    search = Search(config, overrides, project.root / FOLDER, name)
    if known := len(search.trials()):
        say(f"tune: goes on after {known} trials ({search.directory})")
    return search
