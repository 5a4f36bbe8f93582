"""The graph over prepared items: a candidate's share of the first layers is a row of a table, fetched by its number.

Shape legend: N candidate rows.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import ITEM_ROWS, PREPARED, PREPARED_FILE
from contract.inputs import Inputs
from contract.prepared import left_over
from contract.schema import Schema
from serving.graph.answer import ExpertUse
from serving.graph.cuda_tolerance import CudaPrecision
from serving.graph.engine import Device, Engine
from serving.store.golden import GoldenCase, require_golden


class PreparedEngine:
    """The prepared graph of a bundle directory, beside that of `Engine`."""

    def __init__(
        self,
        directory: Path,
        schema: Schema | None = None,
        *,
        threads: int = 1,
        device: Device = "cpu",
        precision: CudaPrecision = "fp32",
    ) -> None:
        """Load ``prepared.onnx``, which `models.export.prepared_export` writes; see `Engine`.

        Raises:
            IntegrityError: there is no such graph, or not one with the agreed inputs and outputs.
            SchemaMismatchError: the graph was exported with another schema.
            ConfigError: as `Engine`.
        """
        self._engine = Engine(
            directory, schema, threads=threads, device=device, precision=precision, file=PREPARED_FILE
        )
        self.names = frozenset(json.loads(self._engine.properties.get(PREPARED, "[]")))
        """The features that a request does not bring."""

    def predict(self, inputs: Inputs, item_rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """As `Engine.predict`, of inputs without the prepared features, and each candidate's row [N].

        Raises:
            PredictionError: as `Engine.predict`.
        """
        return self._engine.run({**inputs.arrays(), ITEM_ROWS: item_rows}, len(item_rows))

    def predict_with_experts(
        self, inputs: Inputs, item_rows: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[np.float32]], ExpertUse]:
        """As `predict`, and which experts that took.

        Raises:
            PredictionError: as `Engine.predict`.
        """
        return self._engine.run_with_experts({**inputs.arrays(), ITEM_ROWS: item_rows}, len(item_rows))

    def check(self, name: str, case: GoldenCase) -> None:
        """Compare the answers to a golden request that names its items' rows.

        Raises:
            PredictionError: as `Engine.check`.
        """
        if case.item_rows is None:
            return
        candidate = left_over(case.inputs.candidate, self._engine.schema.candidate, self.names)
        found = self.predict(replace(case.inputs, candidate=candidate), case.item_rows)
        require_golden(name, case, found, self._engine.tolerance)
