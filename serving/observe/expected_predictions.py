"""How a model's predictions were distributed over its validation rows: what those of a server are compared with.

Shape legend: N rows, T tasks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from contract.schema import Schema
from contract.settings import Settings
from serving.observe.telemetry import ValueDistribution
from serving.store.manifest import Manifest

EXPORT, PREDICTIONS = "export", "predictions"
"""Where the manifest's `about` has it."""


class ValidationCounts(Settings):
    """Of one task's predictions, how many lay up to each of `edges`, and beyond."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


_BY_TASK = TypeAdapter(dict[str, ValidationCounts])


def validation_counts(predictions_NT: NDArray[np.float32], schema: Schema) -> dict[str, dict[str, Any]]:
    """What the manifest is to say of a model's predictions for its validation rows."""
    histograms = {}
    for task, values in zip(schema.tasks, predictions_NT.T, strict=True):
        distribution = ValueDistribution.of(task)
        distribution.add(values)
        histograms[task.name] = {"edges": distribution.edges.tolist(), "counts": distribution.counts.tolist()}
    return histograms


def validation_shares(manifest: Manifest, schema: Schema) -> dict[str, list[float]]:
    """By task, the share of the validation rows up to each edge of the server's own histogram, and 1 at its end.

    Tasks of which the manifest tells nothing, or with other edges, are left out.
    """
    about: Any = manifest.about.get(EXPORT)
    try:
        histograms = _BY_TASK.validate_python(about.get(PREDICTIONS, {}) if isinstance(about, Mapping) else {})
    except ValidationError:
        return {}
    shares = {}
    for task in schema.tasks:
        counts = histograms.get(task.name)
        edges = ValueDistribution.of(task).edges
        if counts is None or len(counts.edges) != len(edges) or not np.allclose(counts.edges, edges):
            continue
        upto = np.cumsum(counts.counts)
        if upto[-1]:
            shares[task.name] = (upto / upto[-1]).tolist()
    return shares
