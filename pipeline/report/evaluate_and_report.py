"""One judgement, for the flow and for the command: metrics, curves, predictions and the report in one directory."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, ValidationError

from contract.errors import ConfigError
from pipeline.console import Progress
from pipeline.evaluation.drift import DRIFT_FILE
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.evaluation.quality_gate import GATE_FILE
from pipeline.evaluation.result import EVALUATION_FILE, Evaluation
from pipeline.evaluation.row_slices import LabelledRows
from pipeline.report import write_report
from pipeline.report.pages import environment
from pipeline.report.report_page import REPORT_TEMPLATE
from pipeline.report.version_test import AGAINST_FILE


@dataclass(frozen=True)
class WrittenEvaluation:
    """An evaluation and where it lies."""

    evaluation: Evaluation
    directory: Path
    report: Path

    def as_json(self) -> dict[str, object]:
        """Paths and headline metrics."""
        paths = {"evaluation": str(self.directory / EVALUATION_FILE), "report": str(self.report)}
        return {**paths, "rows": self.evaluation.rows, "metrics": self.evaluation.headline()}

    def lines(self) -> list[str]:
        """The headline with its interval, beside each baseline, and the paths."""
        notes = [f"note: {finding}" for finding in self.evaluation.findings]
        return [*headline(self.evaluation), *notes, f"report: {self.report}"]


@dataclass(frozen=True)
class About:
    """What the report says beside the metrics: the name, training's ``history.json``, its experts, any facts."""

    name: str | None = None
    history: Path | None = None
    experts: Mapping[str, JsonValue] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


def headline(evaluation: Evaluation) -> list[str]:
    """One line per task: AUC or RMSE with its 95 % interval, and the baselines."""
    lines = []
    for task, values in evaluation.headline().items():
        if not values:
            lines.append(f"{task}: {evaluation.why_no_headline(task)}")
            continue
        metric = next(iter(values))
        best = evaluation.tasks[task][metric]
        rivals = ", ".join(f"{name.partition(' of ')[2]} {value:.4f}" for name, value in list(values.items())[1:])
        unit = evaluation.unit_of(task, metric)
        lines.append(f"{task}: {metric} {best.value:.4f} [{best.low:.4f}, {best.high:.4f}]{unit}  ({rivals})")
    return lines


def evaluation_settings(values: Mapping[str, object]) -> EvaluateConfig:
    """Settings from the command line.

    Raises:
        ConfigError: naming the value that is not allowed.
    """
    try:
        return EvaluateConfig.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = f"--{first['loc'][0]}: {first['msg']} (found {first['input']!r})".replace("_", "-")
        raise ConfigError(message) from error


def evaluate_and_report(
    bundle: Path,
    data: Path | LabelledRows,
    train: Path | None,
    out: Path,
    config: EvaluateConfig,
    *,
    about: About | None = None,
    progress: Progress | None = None,
) -> WrittenEvaluation:
    """Judge a bundle on encoded rows and write everything into `out`; see `pipeline.evaluation.evaluate.evaluate`."""

    def scored(done: int, rows: int) -> None:
        if progress is not None:
            progress.live(f"scored {done} of {rows} rows")

    about = about or About()
    for name in (GATE_FILE, AGAINST_FILE, DRIFT_FILE):
        (out / name).unlink(missing_ok=True)  # what was said of an earlier evaluation in the same place
    with ThreadPoolExecutor(1) as other:
        # Compiling the page's template takes half a second, during which the graph scores.
        other.submit(environment().get_template, REPORT_TEMPLATE)
        evaluation = evaluate(
            bundle, data, train, out, config=config, name=about.name, experts=about.experts, progress=scored
        )  # fmt: skip
    report = write_report(out, history=about.history, facts=about.facts, served=True)
    return WrittenEvaluation(evaluation, out, report)
