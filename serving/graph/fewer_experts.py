"""The graph that takes fewer experts per row: how many is decided where it is served."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import FEWER_FILE, MOST_EXPERTS
from contract.schema import Schema
from serving.graph.engine import Array, Engine


class FewerExpertsEngine(Engine):
    """The engine of ``fewer.onnx``. Graphs of older bundles have a fixed number and keep it."""

    def __init__(
        self, directory: Path, schema: Schema, most: int | None, how: Mapping[str, Any], file: str = FEWER_FILE
    ) -> None:
        """Load it; `most` is how many experts a gate may choose for a row, None: as few as the bundle allows.

        Fewer than that are never taken, since the export measured what that many cost and refused what cost too much.
        `how` is how graphs are run; see `Engine`.

        Raises:
            IntegrityError: as `Engine`.
            SchemaMismatchError: as `Engine`.
            ConfigError: as `Engine`.
        """
        super().__init__(directory, schema, **how, file=file)
        least = int(self.properties.get(MOST_EXPERTS, "1"))
        self.most = max(least, most or 0)
        """How many experts a gate may choose for a row."""
        self._given = {MOST_EXPERTS: np.array([self.most], np.int64)}

    def _run(self, outputs: Sequence[str], arrays: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        return super()._run(outputs, {**arrays, **self._given})
