"""What the verbs `evaluate`, `compare`, `predict` and `drift` do, with live status."""

from collections.abc import Sequence
from pathlib import Path

from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.console import progress_of
from pipeline.evaluation.comparing.compare import compare_models
from pipeline.evaluation.comparing.comparison import Comparison
from pipeline.evaluation.drift import Drift, Side, measure_drift
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate_file, evaluate_on_spark, model_name
from pipeline.evaluation.predict_days import notes_on_key, predict_days
from pipeline.evaluation.prediction_file import Columns
from pipeline.evaluation.result import EVALUATION_FILE
from pipeline.evaluation.row_slices import LabelledRows
from pipeline.report import write_report
from pipeline.report.comparison_page import write_comparison_page
from pipeline.report.drift_charts import write_drift_page
from pipeline.report.evaluate_and_report import WrittenEvaluation, evaluate_and_report


def evaluate_for_command(
    bundle: Path, data: Path | RawDays, train: Path | None, out: Path, config: EvaluateConfig, kept: Path | None = None
) -> WrittenEvaluation:
    """The same for ``moerank evaluate``, with live status; raw days are encoded by the bundle's own recipe."""
    with progress_of("evaluate") as progress:
        if isinstance(data, Path):
            return evaluate_and_report(bundle, data, train, out, config, progress=progress)
        with encoded_days(FittedRecipe.load(bundle), data, progress, kept) as days:
            rows = LabelledRows(days.dataset, days.name, days.zone, tuple(days.notes()))
            return evaluate_and_report(bundle, rows, train, out, config, progress=progress)


def evaluate_predictions(
    path: str, out: Path, config: EvaluateConfig, columns: Columns, master: str | None = None
) -> WrittenEvaluation:
    """The full report of another tool's labels and scores; see `pipeline.evaluation.evaluate.evaluate_file`.

    `master` is a Spark cluster that reads the rows; None reads them here.
    """
    with progress_of("evaluate") as progress:
        if master is None:
            evaluation = evaluate_file(Path(path), out, columns=columns, config=config)
        else:
            progress(f"reading {path} on {master}")
            evaluation = evaluate_on_spark(path, out, master=master, columns=columns, config=config)
        return WrittenEvaluation(evaluation, out, write_report(out, served=False))


def compare_for_command(
    models: Sequence[Path], data: Path | RawDays | None, out: Path, config: EvaluateConfig, columns: Columns
) -> tuple[Comparison, Path]:
    """Compare models with the first of them, and write ``comparison.json`` and a page; see `compare_models`."""
    encoded, days = (None, data) if isinstance(data, RawDays) else (data, None)
    with progress_of("compare") as progress:
        comparison = compare_models(
            models, encoded, out, config=config, columns=columns, days=days, progress=progress
        )  # fmt: skip
    return comparison, write_comparison_page(comparison, out)


def drift_for_command(
    bundle: Path, reference: Path, data: Path | RawDays, out: Path, threshold: float, kept: Path | None = None
) -> tuple[Drift, Path]:
    """Compare new rows with the model's own, and write ``drift.json`` and a page; see `measure_drift`."""
    with progress_of("drift") as progress:
        before = Side(reference, str(reference))
        if isinstance(data, Path):
            drift = measure_drift(bundle, before, Side(data, str(data)), threshold, progress)
        else:
            with encoded_days(FittedRecipe.load(bundle), data, progress, kept) as days:
                drift = measure_drift(bundle, before, Side(days.dataset, days.name), threshold, progress)
        out.mkdir(parents=True, exist_ok=True)
        drift.save(out)
        # Beside an evaluation it is a section of that report, too.
        if (out / EVALUATION_FILE).is_file():
            write_report(out)
        return drift, write_drift_page(drift, out, model_name(bundle))


def predict_for_command(bundle: Path, days: RawDays, out: Path, kept: Path | None = None) -> tuple[int, list[str]]:
    """Score raw days into a file, with live status.

    Returns:
        The rows written, and what a reader should know about them.
    """
    with progress_of("predict") as progress, encoded_days(FittedRecipe.load(bundle), days, progress, kept) as encoded:
        rows = predict_days(bundle, encoded, out, lambda done, total: progress.live(f"{done:,} of {total:,} rows"))
        return rows, [*encoded.notes(), *notes_on_key(out, encoded.row_key)]
