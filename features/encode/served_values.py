"""What encoding asks for rows that hold what was served."""

from typing import Protocol

import pyarrow as pa

from features.encode.encoder import Encoder


class ServedValues(Protocol):
    """What was served in the place of what is computed."""

    def digest(self, rows: pa.ChunkedArray) -> str:
        """What the served values of rows, named as `SERVED_ROW` has them, depend on."""

    def replace(self, raw: pa.Table, columns: dict[str, pa.Array], encoder: Encoder) -> dict[str, pa.Array]:
        """Encoded columns of raw rows, with what was served of them."""
