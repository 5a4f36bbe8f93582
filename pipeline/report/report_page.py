"""The report of an evaluation: one page from all that lies in its directory."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.curves import Curves
from pipeline.evaluation.drift import Drift
from pipeline.evaluation.expert_slices import ExpertSlices
from pipeline.evaluation.importance import Importance
from pipeline.evaluation.quality_gate import GateFinding, gate_findings
from pipeline.evaluation.result import Evaluation, Slice, headline_metric
from pipeline.report import charts, curve_charts, report_parts
from pipeline.report.bar_charts import calibration_by_slice, importance_chart
from pipeline.report.charts import METRIC_LABELS, Chart
from pipeline.report.drift_charts import drift_values
from pipeline.report.over_days import day_chart
from pipeline.report.pages import render_page
from pipeline.report.short_names import meanings
from pipeline.report.slice_tables import slice_rows, slice_tests
from pipeline.report.version_test import AgainstCurrent

REPORT_FILE, FACTS_FILE = "report.html", "report_facts.json"
REPORT_TEMPLATE = "report.html"
Facts = Mapping[str, str | int | float]
_MOST_VALUES = 12


class ReportFacts(Settings):
    """``report_facts.json``: what the page says beside the metrics, kept so that it can be rendered again.

    `epochs` are training's, `facts` are shown as they are, `served` says that the served graph made the scores.
    """

    epochs: list[dict[str, JsonValue]] = []
    facts: dict[str, str | int | float] = {}
    units: dict[str, str] = {}
    served: bool = True

    def save(self, directory: Path) -> None:
        """Write ``report_facts.json``."""
        write_text(self.model_dump_json() + "\n", directory / FACTS_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the facts of a run; empty ones where there is no file.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / FACTS_FILE).read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            message = f"{directory / FACTS_FILE} cannot be read: {error}; evaluate again"
            raise DataError(message) from error


class Beside(Settings):
    """What may lie beside an evaluation: the gate's findings, the test against the current version, and more."""

    gate: tuple[GateFinding, ...] = ()
    against: AgainstCurrent | None = None
    importance: Importance | None = None
    expert_use: ExpertSlices | None = None
    drift: Drift | None = None

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what there is.

        Raises:
            DataError: a file cannot be read.
        """
        return cls(
            gate=gate_findings(directory),
            against=AgainstCurrent.load(directory),
            importance=Importance.load(directory),
            expert_use=ExpertSlices.load(directory),
            drift=Drift.load(directory),
        )


def write_report(
    evaluation_dir: Path,
    path: Path | None = None,
    *,
    history: Path | None = None,
    facts: Facts | None = None,
    units: Mapping[str, str] | None = None,
    served: bool | None = None,
) -> Path:
    """Render the report of an evaluation that `evaluate` wrote, and return its path.

    Args:
        evaluation_dir: Has ``evaluation.json`` and ``curves.json``, and perhaps more that is shown.
        path: Where the report goes; None: ``report.html`` beside them.
        history: A ``history.json``: a list of epochs, or an object with one under ``epochs``; each epoch is an
            object whose numbers, however nested, become curves.
        facts: What to say about the run, such as rows of each split; shown as they are.
        units: Unit of each regression task's label.
        served: Whether the served graph made the scores.

    What is given is kept in ``report_facts.json``; what is None is taken from there.

    Raises:
        DataError: a file cannot be read.
    """
    path = path or evaluation_dir / REPORT_FILE
    evaluation, curves = Evaluation.load(evaluation_dir), Curves.load(evaluation_dir)
    epochs = None if history is None else list(read_history(history))
    given = {"epochs": epochs, "facts": facts, "units": units, "served": served}
    known = ReportFacts.load(evaluation_dir)
    changes = {name: value for name, value in given.items() if value is not None}
    if changes:
        known = ReportFacts.model_validate(known.model_dump() | changes)
        known.save(evaluation_dir)
    write_text(render(evaluation, curves, known, Beside.load(evaluation_dir)), path)
    return path


def read_history(path: Path) -> Sequence[dict[str, JsonValue]]:
    """Read the epochs of a ``history.json``.

    Raises:
        DataError: it cannot be read or has another shape.
    """
    try:
        history = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read: {error}"
        raise DataError(message) from error
    epochs = history.get("epochs") if isinstance(history, dict) else history
    if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
        message = f"{path} has no list of epochs; expected is a list of objects, or one under 'epochs'"
        raise DataError(message)
    return epochs


def render(
    evaluation: Evaluation, curves: Curves, known: ReportFacts | None = None, beside: Beside | None = None
) -> str:  # fmt: skip
    """The report as one HTML document that refers to nothing outside itself."""
    known, beside = known or ReportFacts(), beside or Beside()
    units = {task: unit for task, unit in (known.units | evaluation.units).items() if unit}
    evaluation = evaluation.model_copy(update={"units": units})
    headlines = {task: headline_metric(scores) for task, scores in evaluation.tasks.items()}
    return render_page(
        REPORT_TEMPLATE,
        evaluation=evaluation,
        served=known.served,
        units=units,
        cards=[report_parts.card(evaluation, task) for task in evaluation.tasks],
        gate=beside.gate,
        against=beside.against,
        paired=[] if beside.against is None else report_parts.paired_rows(beside.against, evaluation),
        headline=charts.headline(evaluation),
        task_charts={task: _task_charts(evaluation, curves, task) for task in evaluation.tasks},
        sources={"model": evaluation.tasks, **evaluation.baselines},
        metrics={task: list(scores) for task, scores in evaluation.tasks.items()},
        undefined=evaluation.undefined,
        over_days=_over_days(evaluation),
        importance=beside.importance,
        importance_charts=_importance(beside.importance, evaluation),
        training=charts.training(known.epochs),
        heat=report_parts.heat_map(evaluation),
        experts=report_parts.plain(evaluation.experts),
        expert_warnings=report_parts.texts(evaluation.experts.get("warnings")),
        expert_use=beside.expert_use if beside.expert_use and beside.expert_use.gates else None,
        slices=slice_rows(evaluation.slices),
        slice_tests=slice_tests(evaluation.slices),
        slice_charts=_slice_charts(evaluation),
        calibrated={task: "calibration" in scores for task, scores in evaluation.tasks.items()},
        headline_metric=headlines,
        facts=known.facts,
        words=meanings(_names(evaluation, beside)),
        **drift_values(beside.drift),
    )


def _names(evaluation: Evaluation, beside: Beside) -> list[str]:
    """The short names that the page uses."""
    names = [name for scores in evaluation.tasks.values() for name in scores]
    names += ["95 %", *evaluation.baselines]
    names += ["p"] if beside.against else []
    names += ["importance"] if beside.importance else []
    return names + (["PSI", "KS", "JS"] if beside.drift else [])


def _task_charts(evaluation: Evaluation, curves: Curves, task: str) -> list[Chart]:
    scores, mine = evaluation.tasks[task], curves.tasks[task]
    unit = evaluation.units.get(task, "")
    if not mine.bins:
        return []
    histogram = [] if mine.histogram is None else [curve_charts.histogram(task, mine.histogram, unit)]
    if mine.kind == "regression":
        return [curve_charts.predicted_against_actual(task, mine, unit), *histogram]
    task_charts = [curve_charts.roc(task, mine, scores["auc"].value)] if mine.roc else []
    if mine.pr and "pr_auc" in scores:
        area = scores["pr_auc"]
        rate = (area.positives or 0) / area.n
        task_charts.append(curve_charts.precision_recall(task, mine, area.value, rate))
    calibration = scores["calibration"].value if "calibration" in scores else None
    return [*task_charts, curve_charts.reliability(task, mine, calibration), *histogram]


def _over_days(evaluation: Evaluation) -> list[Chart]:
    """Each task's headline and calibration by day, where the rows are of several days."""
    parts = evaluation.slices.get("day", {})
    day_charts: list[Chart] = []
    for task, scores in evaluation.tasks.items() if len(parts) > 1 else ():
        metric = headline_metric(scores)
        for name, right in ((metric, None), ("calibration", 1.0)):
            estimates = [part.tasks.get(task, {}).get(name or "") for part in parts.values()]
            if name is None or not any(estimates):
                continue
            label = "predicted / actual" if name == "calibration" else METRIC_LABELS.get(name, name)
            caption = f"{task}: {label}{evaluation.unit_of(task, name)} by day, with 95 % intervals"
            day_charts.append(Chart(caption, day_chart(caption, list(parts), estimates, right)))
    return day_charts


def _importance(losses: Importance | None, evaluation: Evaluation) -> list[Chart]:
    if losses is None:
        return []
    return [importance_chart(losses, task, evaluation.unit_of(task, losses.metrics[task])) for task in losses.metrics]


def _slice_charts(evaluation: Evaluation) -> list[Chart]:
    """Calibration by each value of the slices, but for days, which have charts of their own."""
    return [
        calibration_by_slice(name.replace("_", " "), task, parts)
        for name, parts in _named_slices(evaluation)
        for task in evaluation.tasks
        if any("calibration" in part.tasks.get(task, {}) for _, part in parts)
    ]


def _named_slices(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, Slice]]]]:
    """Slices of several values, the first of them."""
    slices = {name: list(values.items())[:_MOST_VALUES] for name, values in evaluation.slices.items() if name != "day"}
    return [(name, parts) for name, parts in slices.items() if len(parts) > 1]
