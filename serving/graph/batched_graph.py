"""Several requests in one run, by the bundle's packed graph: what a run costs beyond its rows is paid once.

Shape legend: R requests, N candidate rows of all requests, n candidate rows of one request, L list features.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import PACKED_FILE, REQUEST_OF
from contract.inputs import Inputs, PartInputs
from contract.schema import Schema
from serving.graph.card_tables import CardTables
from serving.graph.cuda_tolerance import CudaPrecision
from serving.graph.engine import Device, Engine
from serving.store.golden import GoldenCase, require_golden


class BatchedEngine:
    """The packed graph of a bundle directory, beside that of `Engine`; both read the same tables."""

    def __init__(
        self,
        directory: Path,
        schema: Schema | None = None,
        *,
        threads: int = 1,
        device: Device = "cpu",
        precision: CudaPrecision = "fp32",
        file: str = PACKED_FILE,
        capture: bool = False,
        tables: CardTables | None = None,
    ) -> None:
        """Load ``packed.onnx``, which `export.packed` writes, or the one for a card; see `Engine`.

        Raises:
            IntegrityError: there is no such graph, or not one with the agreed inputs and outputs.
            SchemaMismatchError: the graph was exported with another schema.
            ConfigError: CUDA was asked for and is not used, or the bundle did not pass at `precision`.
        """
        self.engine = Engine(
            directory,
            schema,
            threads=threads,
            device=device,
            precision=precision,
            file=file,
            capture=capture,
            tables=tables,
        )

    def predict(self, requests: Sequence[Inputs]) -> list[dict[str, NDArray[np.float32]]]:
        """Each request's predictions by task, float32 [n], as `Engine.predict` would give them one by one.

        Every request has one request row, and at least one request is given.

        Raises:
            PredictionError: the graph could not run, or an answer is not finite or not one number per candidate.
        """
        counts = [inputs.candidate.rows for inputs in requests]
        arrays = Inputs(joined([r.request for r in requests]), joined([r.candidate for r in requests])).arrays()
        of_request = {REQUEST_OF: np.repeat(np.arange(len(counts), dtype=np.int64), counts)}
        predictions = self.engine.run({**arrays, **of_request}, sum(counts))
        ends = np.cumsum(counts)[:-1]
        pieces = {task: np.split(values, ends) for task, values in predictions.items()}
        return [{task: values[place] for task, values in pieces.items()} for place in range(len(counts))]

    def check(self, name: str, case: GoldenCase) -> None:
        """As `Engine.check`, for a run of one request: under int8 experts, rows that share a run move each other.

        Raises:
            PredictionError: as `Engine.check`.
        """
        require_golden(name, case, self.predict([case.inputs])[0], self.engine.tolerance)


def joined(parts: Sequence[PartInputs]) -> PartInputs:
    """The rows of several parts below each other; their lists stay packed feature by feature."""
    lists: list[list[NDArray[np.int64]]] = []
    for part in parts:
        ends = part.list_lengths.sum(axis=1).cumsum()[:-1]
        lists.append(np.split(part.list_values, ends))
    values = [piece for feature in zip(*lists, strict=True) for piece in feature]
    return PartInputs(
        ids=np.concatenate([part.ids for part in parts]),
        list_values=np.concatenate(values) if values else np.zeros(0, np.int64),
        list_lengths=np.concatenate([part.list_lengths for part in parts], axis=1),
        dense=np.concatenate([part.dense for part in parts]),
    )
