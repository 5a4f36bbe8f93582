"""The model card: what a person should know before relying on a published model."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pipeline.config import ProjectConfig
from pipeline.evaluation import Evaluation, headline_metric

LIBRARIES = ("moerank", "torch", "torchrec", "onnx", "onnxruntime", "numpy")


def library_versions() -> dict[str, str]:
    """The versions that made the model."""
    return {name: version(name) for name in LIBRARIES}


def render_card(config: ProjectConfig, evaluation: Evaluation, export: Mapping[str, Any]) -> str:
    """Markdown: use, data, model, quality with intervals and baselines, and how far the figures carry."""
    model = config.model
    quality = ["| task | metric | value | 95 % interval | " + " | ".join(evaluation.baselines) + " |"]
    quality.append("|---" * (4 + len(evaluation.baselines)) + "|")
    for task, scores in evaluation.tasks.items():
        metric = headline_metric(scores)
        found = scores[metric]
        rivals = [f"{base[task][metric].value:.4f}" for base in evaluation.baselines.values()]
        cells = [task, metric, f"{found.value:.4f}", f"{found.low:.4f} to {found.high:.4f}", *rivals]
        quality.append("| " + " | ".join(cells) + " |")
    return f"""# {config.name}

Predicts, for one user and each of some candidates: {", ".join(evaluation.tasks)}.

## Data
Events of `{config.data.events.path}`, split by {config.data.split.by}. Judged on {evaluation.rows} held-out rows.

## Model
{model.experts} experts with the gate `{model.gate.name}`, exported in the {export["form"]} form: {export["reason"]}.
A row needs {export["union_over_n"]:.0%} of the experts, over all tasks. The graph was compared with the trained model
on {export["rows_checked"]} rows; the largest difference was {export["worst_difference"]:.1e}.

## Quality
{chr(10).join(quality)}

Intervals: {evaluation.method.interval}.

## Limits
The figures hold for events like those above. Ids that were not in the training data are treated as unknown; the server
says which. Predictions are not causal effects: they say what would be observed under the policy that made the log.
"""
