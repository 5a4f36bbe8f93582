"""The graph over prepared rows: a candidate's share of the first layers is a row of a table, or a sum of such rows.

Shape legend: N candidate rows.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import PredictionError
from contract.graph_names import ITEM_ROWS, PREPARED, PREPARED_FILE, SHARED, SHARES, SHARES_FOLDER
from contract.prepared import left_over
from contract.schema import Schema
from features.online.online_table import Arrays, mapped_array
from features.online.prepared_items import PreparedEncoder
from features.online.request_encoder import EncodedRequest, RequestEncoder
from features.online.share_rows import ShareTables
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
        file: str = PREPARED_FILE,
        arrays: Arrays = mapped_array,
    ) -> None:
        """Load ``prepared.onnx``, which `models.export.prepared_export` writes, or its int8 form; see `Engine`.

        Raises:
            IntegrityError: there is no such graph, or not one with the agreed inputs and outputs.
            SchemaMismatchError: the graph was exported with another schema.
            ConfigError: as `Engine`.
        """
        self._engine = Engine(directory, schema, threads=threads, device=device, precision=precision, file=file)
        self.names = frozenset(json.loads(self._engine.properties.get(PREPARED, "[]")))
        """The features that a request does not bring."""
        tables = json.loads(self._engine.properties.get(SHARED, "[]"))
        self.shares = ShareTables.open(directory / SHARES_FOLDER, tables, arrays) if tables else None
        """The rows whose sum the graph takes, unless it holds rows of items itself."""

    @property
    def holds_users(self) -> bool:
        """Whether users are prepared; a user store has no prepared rows for them."""
        return self.shares is not None and "user" in self.shares.tables

    def encoder(self, general: RequestEncoder) -> PreparedEncoder:
        """What encodes requests for this graph, or for the general one."""
        return PreparedEncoder(general, self.names, ("item",) if self.shares is None else self.shares.tables)

    def predict(self, encoded: EncodedRequest) -> dict[str, NDArray[np.float32]]:
        """As `Engine.predict`, of a request that was encoded for this graph.

        Raises:
            PredictionError: as `Engine.predict`.
        """
        return self._engine.run(self.arrays(encoded), len(encoded.unknown_items))

    def predict_with_experts(self, encoded: EncodedRequest) -> tuple[dict[str, NDArray[np.float32]], ExpertUse]:
        """As `predict`, and which experts that took.

        Raises:
            PredictionError: as `Engine.predict`.
        """
        return self._engine.run_with_experts(self.arrays(encoded), len(encoded.unknown_items))

    def check(self, name: str, case: GoldenCase) -> None:
        """Compare the answers to a golden request that names its items' rows.

        Raises:
            PredictionError: as `Engine.check`.
        """
        if case.item_rows is not None:
            require_golden(name, case, self.predict_case(case), self._engine.tolerance)

    def predict_case(self, case: GoldenCase) -> dict[str, NDArray[np.float32]]:
        """The answers to a golden request that names its items' rows.

        Raises:
            PredictionError: as `Engine.predict`.
        """
        candidate = left_over(case.inputs.candidate, self._engine.schema.candidate, self.names)
        arrays: dict[str, Any] = {**replace(case.inputs, candidate=candidate).arrays(), ITEM_ROWS: case.item_rows}
        return self._engine.run(arrays, case.inputs.candidate.rows)

    def check_raw(self, name: str, case: GoldenCase, encoded: EncodedRequest) -> None:
        """Compare the answers to a raw golden request, encoded for this graph, with those that the exporter saw.

        Raises:
            PredictionError: as `Engine.check`, or the request was encoded for another graph.
        """
        if not encoded.rows_of:
            message = f"golden request {name} was encoded for the general graph, not for that over prepared rows"
            raise PredictionError(message)
        require_golden(name, case, self.predict(encoded), self._engine.tolerance)

    def arrays(self, encoded: EncodedRequest) -> dict[str, Any]:
        """What the graph takes, by input name, and more; the sum of prepared rows until the thread's next request."""
        arrays: dict[str, Any] = {**encoded.inputs.arrays(), ITEM_ROWS: encoded.item_rows}
        if self.shares is not None:
            arrays[SHARES] = self.shares.sum(encoded.rows_of, len(encoded.unknown_items))
        return arrays
