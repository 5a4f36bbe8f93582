"""Publication of a run behind the quality gate."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.files import write_text
from contract.ranking_policy import require_context
from contract.schema import Schema
from features.online.given_values import context_names
from pipeline.evaluation.quality_gate import GATE_FILE, GateFinding, enforce, examine
from pipeline.evaluation.result import EVALUATION_FILE, Evaluation
from pipeline.project.project_config import ProjectConfig
from pipeline.provenance import git_revision, library_versions
from pipeline.release.model_card import render_card
from pipeline.report import write_report
from pipeline.report.report_page import REPORT_FILE
from pipeline.report.version_test import AGAINST_FILE, AgainstCurrent
from pipeline.step_cache import STEP_FILE
from serving.store.bundle import publish

CARD_FILE = "MODEL_CARD.md"
EXPORT_FACTS = (
    "stages",
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
    "left_out",
    "int8",
    "graphs",
    "pruned",
    "merged",
    "cuda_precisions",
    "cuda",
    "preparation",
    "predictions",
)
"""What the manifest tells of how the graph was made."""


def publish_run(
    config: ProjectConfig,
    export_dir: Path,
    evaluation_dir: Path,
    exported: Mapping[str, Any],
    findings: Sequence[GateFinding] = (),
    compared: AgainstCurrent | None = None,
) -> Path:
    """Let the quality gate judge, then publish a new current version.

    `findings` are those of tests that were made elsewhere, such as the one against the current version, and `compared`
    is what they rest on. All of it is in ``gate.json`` and ``against_current.json`` beside the evaluation and in its
    report, whatever it says, and in the manifest and the card if it passes.

    Returns:
        ``STORE/MODEL/VERSION``.

    Raises:
        ConfigError: the score is chosen by what no request has; nothing was published.
        QualityGateError: a rule failed; nothing was published.
    """
    schema = Schema.load(export_dir)
    require_context(config.score, context_names(schema))
    evaluation = Evaluation.load(evaluation_dir)
    all_findings = (*examine(evaluation, config.quality), *findings)
    gate = [finding.model_dump(mode="json") for finding in all_findings]
    write_text(json.dumps(gate, indent=1) + "\n", evaluation_dir / GATE_FILE)
    (evaluation_dir / AGAINST_FILE).unlink(missing_ok=True)
    if compared is not None:
        compared.save(evaluation_dir)
    write_report(evaluation_dir)
    enforce(evaluation, config.quality, findings)
    card = evaluation_dir / CARD_FILE
    write_text(render_card(config, evaluation, exported, all_findings), card)
    files = {path.relative_to(export_dir).as_posix(): path for path in bundle_files(export_dir)}
    files |= {path.name: path for path in (card, evaluation_dir / EVALUATION_FILE, evaluation_dir / REPORT_FILE)}
    manifest = {
        "schema_fingerprint": schema.fingerprint(),
        "tasks": [task.name for task in schema.tasks],
        "metrics": evaluation.headline(),
        "git_revision": git_revision(),
        "libraries": library_versions(),
        "score": config.score,
        "about": {
            "export": {name: exported[name] for name in EXPORT_FACTS},
            "gate": gate,
            "against_current": None if compared is None else compared.model_dump(mode="json"),
        },
    }
    return publish(config.store, config.name, files, manifest)


def bundle_files(export_dir: Path) -> list[Path]:
    """All that was exported, without the record of the step and without what a killed export left half written."""
    files = (path for path in export_dir.rglob("*") if path.is_file())
    return [path for path in files if path.name != STEP_FILE and not path.name.startswith(".")]
