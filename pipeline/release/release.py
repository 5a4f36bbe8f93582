"""From a trained run to a published bundle: export, and publication behind the quality gate."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.directories import write_text
from contract.inputs import Inputs
from contract.schema import Schema
from features.batches import BatchReader
from features.encode.vocabulary import VOCABULARY_FILE
from models.export import ExportReport, as_json, export
from models.export.batched_export import export_packed
from models.export.onnx_file import annotate
from models.ranker import Ranker
from pipeline.console import Progress
from pipeline.evaluation.quality_gate import enforce
from pipeline.evaluation.result import EVALUATION_FILE, Evaluation
from pipeline.export.golden_cases import write_golden
from pipeline.export.post_export import ExportConfig, answerer, apply_if_equal, calibrate_on, drop_unread_tables
from pipeline.project.project_config import ProjectConfig
from pipeline.release.model_card import library_versions, render_card
from pipeline.report.report_page import REPORT_FILE
from pipeline.step_cache import STAMP_FILE
from pipeline.training.checkpoint import load_ranker
from serving.store.bundle import GOLDEN_FILE, MODEL_FILE, ONLINE_FOLDER, PACKED_FILE, publish

SAMPLE_ROWS = 2048
CARD_FILE = "MODEL_CARD.md"
EXPORT_FACTS = (
    "form",
    "reason",
    "warning",
    "gate",
    "union_over_n",
    "rows_checked",
    "worst_difference",
    "idle",
    "calibration",
    "changes",
)
"""What the manifest tells of how the graph was made."""


def export_run(
    run_dir: Path, features_dir: Path, rows: Path, out: Path, config: ExportConfig, progress: Progress
) -> dict[str, Any]:
    """Write graph, golden requests, schema, vocabularies and online tables into `out`, which exists.

    Raises:
        ExportError: the graph does not answer as the model does, or smaller numbers cost too much.
        SchemaMismatchError: the features are not those that the run was trained on.
    """
    progress("reading the checkpoint")
    schema = Schema.load(features_dir)
    ranker, valid = load_ranker(run_dir, schema), features_dir / "valid.parquet"
    calibration = calibrate_on(ranker, valid, config.methods(schema))
    progress("writing the graph and comparing it with the model")
    sample = next(BatchReader(rows, schema, SAMPLE_ROWS).epoch())
    settings: dict[str, Any] = {"typical_rows": config.typical_rows, "require_sparse": config.require_sparse}
    report = export(ranker, schema, sample.inputs, out / MODEL_FILE, config.form, **settings)
    _pack(ranker, report, sample.inputs, out / PACKED_FILE, config)
    figures = apply_if_equal(out / MODEL_FILE, schema, valid, config.changes(), (out / PACKED_FILE,))
    drop_unread_tables(out, config.tables)
    made = {"calibration": calibration, "changes": figures, "git_revision": git_revision()}
    for graph in (out / MODEL_FILE, out / PACKED_FILE):
        if graph.is_file():
            annotate(
                graph, {name: value if isinstance(value, str) else json.dumps(value) for name, value in made.items()}
            )
    progress("golden requests and online tables")
    write_golden(ranker, rows, out / GOLDEN_FILE, answerer(out / MODEL_FILE, schema) if figures else None)
    schema.save(out)
    shutil.copyfile(features_dir / VOCABULARY_FILE, out / VOCABULARY_FILE)
    shutil.rmtree(out / ONLINE_FOLDER, ignore_errors=True)
    shutil.copytree(features_dir / ONLINE_FOLDER, out / ONLINE_FOLDER)
    return as_json(report) | made


def _pack(ranker: Ranker, report: ExportReport, sample: Inputs, target: Path, config: ExportConfig) -> None:
    # One of an earlier export would be published beside a graph of other weights.
    target.unlink(missing_ok=True)
    if config.packed:
        export_packed(ranker, report, sample, target)


def publish_run(config: ProjectConfig, export_dir: Path, evaluation_dir: Path, exported: Mapping[str, Any]) -> Path:
    """Let the quality gate judge, then publish a new current version.

    Returns:
        ``STORE/MODEL/VERSION``.

    Raises:
        QualityGateError: a rule failed; nothing was published.
    """
    evaluation = Evaluation.load(evaluation_dir)
    enforce(evaluation, config.quality)
    card = evaluation_dir / CARD_FILE
    write_text(render_card(config, evaluation, exported), card)
    files = {path.relative_to(export_dir).as_posix(): path for path in _bundle_files(export_dir)}
    files |= {path.name: path for path in (card, evaluation_dir / EVALUATION_FILE, evaluation_dir / REPORT_FILE)}
    schema = Schema.load(export_dir)
    manifest = {
        "schema_fingerprint": schema.fingerprint(),
        "tasks": [task.name for task in schema.tasks],
        "metrics": evaluation.headline(),
        "git_revision": git_revision(),
        "libraries": library_versions(),
        "score": config.score,
        "about": {"export": {name: exported[name] for name in EXPORT_FACTS}},
    }
    return publish(config.store, config.name, files, manifest)


def _bundle_files(export_dir: Path) -> list[Path]:
    """All that was exported, without the record of the step."""
    return [path for path in export_dir.rglob("*") if path.is_file() and path.name != STAMP_FILE]


def git_revision() -> str:
    """The commit of the code, with ``+`` where files differ from it; empty outside a repository."""
    root = Path(__file__).parent.parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],  # noqa: S607 - the user's git
            cwd=root,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
