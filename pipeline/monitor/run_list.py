"""The training runs below a workspace, with what each published and how good it was."""

from pathlib import Path

from contract.errors import MoerankError
from contract.settings import Settings
from pipeline.evaluation.quality_gate import gate_findings
from pipeline.evaluation.result import Evaluation, TaskScores, headline_metric
from pipeline.report.report_page import REPORT_FILE
from pipeline.report.runs_page import RunFigures, write_runs_page
from pipeline.step_cache import read_record
from serving.store import local_store


class ListedRun(Settings):
    """A run: when its training ended (UTC), the version that it published if it did, and its headline metrics."""

    project: str
    run: str
    made: str
    version: int | None = None
    current: bool = False
    state: str
    tasks: TaskScores = {}
    units: dict[str, str] = {}
    rows: int = 0
    report: str = ""

    def line(self) -> str:
        """For a person: one line of a table."""
        version = f"{self.version}{' *' if self.current else ''}" if self.version else "-"
        figures = []
        for task, scores in self.tasks.items():
            metric = headline_metric(scores)
            if metric is not None:
                estimate = scores[metric]
                unit = f" {self.units[task]}" if metric == "rmse" and self.units.get(task) else ""
                figures.append(f"{task} {metric} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]{unit}")
        return f"{self.project:<14} {self.run:<17} {self.made:<20} {version:<8} {self.state:<10} {', '.join(figures)}"


HEADER = f"{'project':<14} {'run':<17} {'made (UTC)':<20} {'version':<8} {'state':<10} metrics, 95 %"


def list_runs(workspace: Path) -> list[ListedRun]:
    """All finished training runs of all projects below a workspace, the earliest first."""
    runs = [
        run
        for training in sorted(workspace.glob("*/training"))
        for folder in training.iterdir()
        if (run := _listed(training.parent, folder)) is not None
    ]
    return sorted(runs, key=lambda run: (run.made, run.run))


def write_index(workspace: Path) -> Path:
    """Write ``index.html`` into the workspace: all runs in a table, and their metrics over time."""
    rows = [
        RunFigures(
            project=run.project,
            run=run.run,
            made=run.made,
            version=run.version,
            current=run.current,
            state=run.state,
            tasks=run.tasks,
            units=run.units,
            report=run.report,
        )
        for run in list_runs(workspace)
    ]
    return write_runs_page(workspace, rows)


def _listed(root: Path, folder: Path) -> ListedRun | None:
    record = read_record(folder)
    if record is None:
        return None
    evaluation = _evaluation(folder / "evaluation")
    version = _version(root, folder)
    return ListedRun(
        project=root.name,
        run=folder.name,
        made=record.made[:19].replace("T", " "),
        version=version,
        current=version is not None and version == _current(root),
        state=_state(folder, version, evaluated=evaluation is not None),
        tasks={} if evaluation is None else _headlines(evaluation.tasks),
        units={} if evaluation is None else evaluation.units,
        rows=0 if evaluation is None else evaluation.rows,
        report=f"{root.name}/training/{folder.name}/evaluation/{REPORT_FILE}" if evaluation else "",
    )


def _evaluation(directory: Path) -> Evaluation | None:
    try:
        return Evaluation.load(directory)
    except MoerankError:
        return None


def _headlines(tasks: TaskScores) -> TaskScores:
    """Of each task its headline metric and its calibration."""
    return {
        task: {name: scores[name] for name in (headline_metric(scores), "calibration") if name in scores and name}
        for task, scores in tasks.items()
    }


def _version(root: Path, folder: Path) -> int | None:
    """The version that a run published, if it is still in the store."""
    record = read_record(folder / "publication")
    bundle = root / "store" / root.name / Path(str(record.result.get("bundle", ""))).name if record else None
    return int(bundle.name) if bundle and local_store.is_version(bundle.name) and bundle.is_dir() else None


def _current(root: Path) -> int | None:
    try:
        return local_store.current(root / "store", root.name)
    except MoerankError:
        return None


def _state(folder: Path, version: int | None, *, evaluated: bool) -> str:
    """How far a run came."""
    if version is not None:
        return "published"
    if any(not finding.passed for finding in gate_findings(folder / "evaluation")):
        return "refused"
    return "evaluated" if evaluated else "trained"
