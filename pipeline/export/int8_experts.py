"""int8 experts in a run's graphs: the steps of their inputs come from training rows, the judgement from others."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from onnxscript import ir

from contract.errors import ExportError
from contract.schema import Schema
from features.batches import BatchReader
from models.export.activation_ranges import Ranges, layers_of, measure_ranges
from models.export.quantise import quantise_experts

ROWS, BATCH = 65_536, 4_096
"""Training rows that say between which values a layer's inputs lie, and how many run at a time."""
WORTH = 2**15
"""Weights of experts and towers from which on ``auto`` takes int8: smaller layers cost less than rounding does."""


class Int8Experts:
    """Writes a graph with int8 experts and towers; graphs of the same weights take the ranges of the first."""

    def __init__(self, train: Path, schema: Schema, *, least_weights: int = 0) -> None:
        """Take the training rows; a graph with fewer than `least_weights` in its layers is left as it is."""
        self.train, self.schema, self.least_weights = train, schema, least_weights
        self._ranges: Ranges | None = None

    def __call__(self, source: Path, target: Path) -> None:
        """Quantise one graph.

        Raises:
            ExportError: there is no layer to quantise, too few weights, or no rows.
        """
        if self._ranges is None:
            self._require_worth(source)
            self._ranges = measure_ranges(source, self._runs())
        quantise_experts(source, target, self._ranges)

    def _runs(self) -> Iterator[Mapping[str, Any]]:
        # Shuffled, so that the rows are of all days.
        batches = BatchReader(self.train, self.schema, BATCH, seed=0).epoch()
        return (batch.inputs.arrays() for batch in islice(batches, ROWS // BATCH))

    def _require_worth(self, source: Path) -> None:
        weights = sum(layer.weight_IO.size for layer in layers_of(ir.load(source).graph))
        if weights < self.least_weights:
            message = f"experts and towers have {weights} weights; below {self.least_weights} int8 spares nothing"
            raise ExportError(message)
