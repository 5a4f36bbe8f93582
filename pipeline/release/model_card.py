"""The model card: what a person should know before relying on a published model."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.model_config import ModelConfig
from pipeline.evaluation.quality_gate import GateFinding
from pipeline.evaluation.result import Evaluation, headline_metric
from pipeline.project.project_config import ProjectConfig


def render_card(
    config: ProjectConfig, evaluation: Evaluation, export: Mapping[str, Any], findings: Sequence[GateFinding] = ()
) -> str:  # fmt: skip
    """Markdown: use, data, model, graph, quality with intervals and baselines, and how far the figures carry.

    `export` is what `pipeline.export.export_run.export_run` returned.
    """
    quality = ["| task | metric | value | 95 % interval | " + " | ".join(evaluation.baselines) + " |"]
    quality.append("|---" * (4 + len(evaluation.baselines)) + "|")
    for task, scores in evaluation.tasks.items():
        metric = headline_metric(scores)
        if metric is None:
            quality.append(f"| {task} | {evaluation.why_no_headline(task)} |" + " |" * (2 + len(evaluation.baselines)))
            continue
        estimate = scores[metric]
        rivals = [f"{base[task][metric].value:.4f}" for base in evaluation.baselines.values()]
        cells = [task, metric, f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", *rivals]
        quality.append("| " + " | ".join(cells) + " |")
    return f"""# {config.name}

Predicts, for one user and each of some candidates: {", ".join(evaluation.tasks)}.

## Data
Events of `{config.data.events.path}`, split by {config.data.split.by}. Judged on {evaluation.rows} held-out rows.

## Model
{network_in_words(config.model)},
exported in the {export["form"]} form: {export["reason"]}.
A row needs {export["union_over_n"]:.0%} of the experts, over all tasks.

## Graph
{chr(10).join(_graph(export))}

## Quality
{chr(10).join(quality)}

Intervals: {evaluation.method.interval}.

## Gate
{chr(10).join(f"- {finding.text}" for finding in findings) or "No rule was asked for."}

## Limits
The figures hold for events like those above. Ids that were not in the training data are treated as unknown; the server
says which. Predictions are not causal effects: they say what would be observed under the policy that made the log.
"""


def network_in_words(model: ModelConfig) -> str:
    """Its experts, its gates and, if there are several, its members."""
    members = f"{model.members} members, each of " if model.members > 1 else ""
    architecture, gate = model.architecture.name, model.gate.name
    return f"{members}{model.experts} experts in the architecture `{architecture}` with the gate `{gate}`"


def _graph(export: Mapping[str, Any]) -> list[str]:
    """How the graph was checked, what was done to it and what made it."""
    rows, worst = export["rows_checked"], export["worst_difference"]
    lines = [
        f"Compared with the trained model on {rows} rows, real and generated; the largest difference was {worst:.1e}."
    ]
    lines += [f"Note that {export['warning']}."] if export["warning"] else []
    if export["idle"]:
        numbers = ", ".join(map(str, export["idle"]))
        lines.append(f"None of these rows selected the experts {numbers} (counted from 0 over all levels).")
    if export["calibration"]:
        lines += ["", "| calibrated task | by | log loss before | after |", "|---|---|---|---|"]
        for task, calibration in export["calibration"].items():
            loss = calibration["log_loss"]
            lines.append(f"| {task} | {calibration['method']} | {loss['before']:.5f} | {loss['after']:.5f} |")
    if export.get("pruned"):
        lines.append(f"Of its experts, export {export['pruned']['said']}, which are the validation rows.")
    if export.get("merged"):
        lines.append(f"Of its experts, export {export['merged']['said']} on the validation rows.")
    if export["changes"]:
        lines += ["", "| smaller numbers | task | metric | float32 | after |", "|---|---|---|---|---|"]
        for change, tasks in export["changes"].items():
            for task, f in tasks.items():
                lines.append(f"| {change} | {task} | {f['metric']} | {f['before']:.5f} | {f['after']:.5f} |")
    lines += [f"Left out: {reason}." for reason in export.get("left_out", {}).values()]
    if export["calibration"] or export["changes"]:
        lines += ["", "Both tables are of the validation rows, which also set the calibration."]
    versions = ", ".join(f"{name} {number}" for name, number in export["versions"].items())
    revision = f"revision {export['git_revision']}" if export["git_revision"] else "no known revision"
    return [*lines, "", f"Made by {revision} with {versions}."]
