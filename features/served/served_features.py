"""Features of training rows as they were served, in the place of those that a build computes."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.columns import SERVED_ROW
from contract.dataset import EncodedWith
from contract.digests import digest_of
from contract.errors import DataError
from contract.schema import FeatureSpec, IdSpec, Schema
from features.encode.encoder import Encoder
from features.encode.write_splits import encode_feature
from features.served.decode_features import can_translate, translate
from features.served.log_format import ServedEncoding, feature_column
from features.served.served_events import ROW_BITS, load_encoding

_ROW_MASK = (1 << ROW_BITS) - 1
FILES_AT_HAND = 64


class ServedFeatures:
    """Looks up what was served in a cache that `with_served_rows` has made."""

    def __init__(self, cache: Path) -> None:
        """Look at the names of the files; they are read when their rows are needed."""
        self._cache = cache
        self._files = {int(path.name.partition("-")[0]): path for path in sorted(cache.glob("*.parquet"))}
        self._encoding = lru_cache(maxsize=None)(lambda fingerprint: load_encoding(cache, fingerprint))
        self._file = lru_cache(maxsize=FILES_AT_HAND)(_read_file)
        self.computed: dict[str, str] = {}
        """Features that no served value could stand for, and why."""

    def digest(self, rows: pa.ChunkedArray) -> str:
        """What the served values of some rows depend on: the files that they lie in."""
        numbers = np.unique(rows.drop_null().to_numpy() >> ROW_BITS)
        return digest_of([self._files[int(number)].name for number in numbers])

    def read(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], pa.Table, ServedEncoding]]:
        """Served rows file by file: their places among `rows` [n], the file's rows, and what encoded them."""
        numbers = rows >> ROW_BITS
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            table = self._file(self._files[int(number)])
            encoded_with = EncodedWith.read(table.schema.metadata)
            if encoded_with is None:
                message = f"{self._files[int(number)]} is damaged; remove that folder, and it is made again"
                raise DataError(message)
            yield (
                places,
                table.take(pa.array(rows[places] & _ROW_MASK)),
                self._encoding(encoded_with.schema_fingerprint),
            )

    def replace(self, raw: pa.Table, columns: dict[str, pa.Array], encoder: Encoder) -> dict[str, pa.Array]:
        """Encoded columns with served values in the place of computed ones.

        Raw rows that were not served keep theirs; so do features that the version which served did not have.
        """
        served = raw[SERVED_ROW].combine_chunks()
        served_rows = np.flatnonzero(served.is_valid().to_numpy(zero_copy_only=False))
        rows = served.drop_null().to_numpy()
        pieces: dict[str, list[tuple[NDArray[np.int64], pa.Array]]] = {}
        for places, table, encoding in self.read(rows):
            for name, values in self._translated(table, encoding, encoder).items():
                pieces.setdefault(name, []).append((served_rows[places], values))
        return columns | {name: _spliced(columns[name], parts) for name, parts in pieces.items()}

    def _translated(self, table: pa.Table, encoding: ServedEncoding, target: Encoder) -> dict[str, pa.Array]:
        old = {spec.name: spec for spec in encoding.schema.features}
        columns = {}
        for spec in target.schema.features:
            if is_given_raw(spec, target.schema) and spec.name in table.column_names:
                values = table[spec.name].combine_chunks()
                columns[spec.name] = encode_feature(target, spec, values)
            elif spec.name in old and can_translate(old[spec.name], spec):
                served = table[feature_column(spec.name)].combine_chunks()
                columns[spec.name] = translate(old[spec.name], encoding.encoder, spec, target, served)
            else:
                known = "is encoded in another way" if spec.name in old else "was not served"
                self.computed.setdefault(spec.name, known)
        return columns


def _read_file(path: Path) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read()


def is_given_raw(spec: FeatureSpec, schema: Schema) -> bool:
    """Whether the log has the raw value, of which each version makes its own row: the keys and the context's ids.

    So values that the version which served did not know train their rows.
    """
    if not isinstance(spec, IdSpec) or spec.cross:
        return False
    return spec.name in {schema.user_key, schema.item_key} or spec.side == "context"


def _spliced(computed: pa.Array, parts: list[tuple[NDArray[np.int64], pa.Array]]) -> pa.Array:
    """A column with other values in some places."""
    computed = computed.combine_chunks() if isinstance(computed, pa.ChunkedArray) else computed
    source = np.arange(len(computed))
    begin = len(computed)
    for places, values in parts:
        source[places] = np.arange(begin, begin + len(values))
        begin += len(values)
    together = pa.concat_arrays([computed, *(values.cast(computed.type) for _, values in parts)])
    return together.take(pa.array(source))
