"""The form of the log of served requests, which the server writes and a features build reads.

::

    model=shop/date=2026-11-26/hour=20/*.parquet   one row per request; what is the candidates' is a list in their order
    model=shop/_encodings/FINGERPRINT/             what the features of files with this fingerprint were encoded with

A request's own columns stand under plain names (`REQUEST_ID`, ...), features under ``feature__NAME``: encoded, as the
model was served them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.columns import FEATURE
from contract.errors import DataError
from contract.graph_names import PRIORS_FILE
from contract.schema import SCHEMA_FILE, Schema
from features.encode.encoder import Encoder
from features.encode.vocabulary import VOCABULARY_FILE, Vocabularies

REQUEST_ID, AT_MS, CONTEXT, USER, ITEM = "request_id", "at_ms", "context", "user", "item"
ENCODINGS_FOLDER = "_encodings"
ENCODING_FILES = (SCHEMA_FILE, VOCABULARY_FILE, PRIORS_FILE)
"""Of a bundle, what its features were encoded with."""
CANDIDATES_KEY = b"moerank.candidates"
"""Names in a file's metadata the columns that are lists in the order of the candidates."""


def feature_column(feature: str) -> str:
    """The column of a feature as it was served."""
    return FEATURE + feature


def one_row_a_request(
    requests: dict[str, pa.Array], candidates: dict[str, pa.Array], counts: list[int], metadata: dict[bytes, bytes]
) -> pa.Table:
    """The log's rows, out of columns of the requests and columns of their candidates, of which each has `counts`."""
    offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
    lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in candidates.items()}
    return pa.table({**requests, **lists}).replace_schema_metadata(
        {**metadata, CANDIDATES_KEY: json.dumps(list(candidates)).encode()}
    )


def candidate_rows(table: pa.Table) -> pa.Table:
    """Rows of the log as one row per candidate; what belongs to the request is repeated for each of its candidates.

    Raises:
        DataError: the table's metadata do not say which columns are the candidates'.
    """
    metadata = table.schema.metadata or {}
    if CANDIDATES_KEY not in metadata:
        message = f"this is not a log of served requests: its metadata lack {CANDIDATES_KEY.decode()!r}"
        raise DataError(message)
    names = json.loads(metadata[CANDIDATES_KEY])
    counts = pc.list_value_length(table[ITEM]).to_numpy()
    rows = pa.array(np.repeat(np.arange(len(counts)), counts))
    columns = {
        name: pc.list_flatten(table[name]) if name in names else table[name].take(rows) for name in table.column_names
    }
    return pa.table(columns).replace_schema_metadata(metadata)


@dataclass(frozen=True)
class ServedEncoding:
    """What served features were encoded with; `priors` are the means that smooth rates."""

    encoder: Encoder
    priors: dict[str, float]

    @property
    def schema(self) -> Schema:
        """The features, and how each was encoded."""
        return self.encoder.schema

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what a server wrote beside its log.

        Raises:
            DataError: a file is missing.
            IntegrityError: the vocabulary is not the schema's.
        """
        schema = Schema.load(directory)
        vocabularies = Vocabularies.load(directory, schema.vocabulary_tables(), schema.vocabulary_sha256)
        priors = directory / PRIORS_FILE
        shares = json.loads(priors.read_text(encoding="utf-8")) if priors.is_file() else {}
        return cls(Encoder(schema, vocabularies), shares)
