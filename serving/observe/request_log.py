"""The log of served requests: what was asked, what was served, and the features it was served with, as Parquet.

One row a request, under ``model=NAME/date=YYYY-MM-DD/hour=HH/``, a file a minute or so many candidates. What belongs to
the candidates is a list in their order; `candidate_rows` makes a row of each, with the columns, types and schema
fingerprint of training rows, so that rows of the log joined with outcomes are rows to train on. A thread of its own
writes; what it cannot take is dropped and counted, and no answer waits.

Shape legend: N candidate rows.
"""

import json
import logging
import os
import queue
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.dataset import EncodedWith
from contract.files import appearing
from contract.hashing import hash_text
from contract.inputs import PartInputs
from contract.schema import Part
from features.online.request_encoder import EncodedRequest, RankRequest
from serving.graph.answer import RankAnswer
from serving.graph.served_model import RankingModel
from serving.store.remote_files import RemoteFiles

LOG = logging.getLogger("moerank.log")
WAITING = 1024
"""Answers that may wait to be written; they hold their inputs in memory."""
FILE_ROWS = 100_000
"""Candidates after which a file is closed before its minute is over."""
FILE_SECONDS = 60.0
CANDIDATES_KEY = b"moerank.candidates"
"""Names in a file's metadata the columns that are lists in the order of the candidates."""


@dataclass(frozen=True)
class ServedRequest:
    """A request with its answer, at `at_ms` milliseconds since 1970."""

    model: RankingModel
    request: RankRequest
    encoded: EncodedRequest
    answer: RankAnswer
    at_ms: int


@dataclass
class _Buffer:
    """Tables of one version that wait to be written."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    since: float = field(default_factory=time.monotonic)


class RequestLog:
    """Logs a share of the answered requests until it is closed."""

    def __init__(self, target: Path | str, share: float = 0.1, seconds: float = FILE_SECONDS) -> None:
        """Write below a directory, or a URL of any filesystem that fsspec speaks.

        Raises:
            ConfigError: a protocol that no installed package speaks.
        """
        self._target = target
        self._remote = RemoteFiles(str(target)) if "://" in str(target) else None
        self._share = share
        self._seconds = seconds
        self._queue: queue.Queue[ServedRequest | None] = queue.Queue(WAITING)
        self._buffers: dict[tuple[str, int], _Buffer] = {}
        self._lock = threading.Lock()
        self._files = 0
        self.counts: Counter[str] = Counter()
        """Requests: ``written``, ``dropped`` since too many waited, ``failed`` since the target did not take them."""
        self._thread = threading.Thread(target=self._run, name="moerank-log", daemon=True)
        self._thread.start()

    def offer(self, model: RankingModel, request: RankRequest, encoded: EncodedRequest, answer: RankAnswer) -> None:
        """Log an answer if it falls into the share; drop it where too many wait."""
        if self._share < 1 and hash_text(answer.request_id) >= self._share * 2**64:
            return
        try:
            self._queue.put_nowait(ServedRequest(model, request, encoded, answer, time.time_ns() // 1_000_000))
        except queue.Full:
            self._count("dropped", 1)

    def close(self) -> None:
        """Write what was offered, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _count(self, outcome: str, requests: int) -> None:
        with self._lock:
            self.counts[outcome] += requests

    def _run(self) -> None:
        ended = False
        while not ended:
            try:
                served = self._queue.get(timeout=self._seconds / 4)
            except queue.Empty:
                self._flush(self._due())
                continue
            ended = served is None
            if served is not None:
                self._take(served)
            self._flush(list(self._buffers) if ended else self._due())

    def _take(self, served: ServedRequest) -> None:
        try:
            table = table_of(served)
        except Exception:
            # A defect here must not end the log, nor the server.
            LOG.exception("an answer could not be logged")
            self._count("failed", 1)
            return
        buffer = self._buffers.setdefault((served.model.name, served.model.version), _Buffer())
        buffer.tables.append(table)
        buffer.rows += len(served.answer.scores)

    def _due(self) -> list[tuple[str, int]]:
        now = time.monotonic()
        return [
            key
            for key, buffer in self._buffers.items()
            if buffer.rows >= FILE_ROWS or now - buffer.since >= self._seconds
        ]

    def _flush(self, keys: list[tuple[str, int]]) -> None:
        for key in keys:
            buffer = self._buffers.pop(key)
            try:
                self._write(key[0], pa.concat_tables(buffer.tables))
                self._count("written", len(buffer.tables))
            except Exception as error:  # noqa: BLE001 a full disk or a store that is away must not end the server
                self._count("failed", len(buffer.tables))
                LOG.error("%d logged answers are lost: %s", len(buffer.tables), error)  # noqa: TRY400

    def _write(self, model: str, table: pa.Table) -> None:
        now = datetime.now(UTC)
        self._files += 1
        folder = f"model={model}/date={now:%Y-%m-%d}/hour={now:%H}"
        name = f"{folder}/{now:%M%S}-{socket.gethostname()}-{os.getpid()}-{self._files}.parquet"
        if self._remote is None:
            path = Path(self._target) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing(path) as partial:
                pq.write_table(table, partial, compression="zstd")
            return
        with TemporaryDirectory(prefix="moerank-log-") as scratch:
            local = Path(scratch) / "rows.parquet"
            pq.write_table(table, local, compression="zstd")
            self._remote.upload(local, name)


def table_of(served: ServedRequest) -> pa.Table:
    """One row: who, what, when, and the request's features; lists of the candidates' ids, predictions and features."""
    model, request, answer = served.model, served.request, served.answer
    encoded, schema = served.encoded, model.bundle.schema
    if encoded.item_rows is not None:
        # It was encoded for prepared items, which stand for the columns of the table.
        encoded = model.encoder.encode(request, pushed=model.pushed)
    kinds = {key.name: pa.string() if key.dtype == "string" else pa.int64() for key in schema.keys}
    position = np.full(len(answer.scores), -1, np.int32)
    position[answer.order] = np.arange(len(answer.order), dtype=np.int32)
    candidates: dict[str, pa.Array] = {
        "item": pa.array(list(request.items), kinds.get(schema.item_key, pa.int64())),
        "position": pa.array(position),
        "score": pa.array(answer.scores),
        **{f"prediction__{task}": pa.array(values) for task, values in answer.predictions.items()},
        **_columns(schema.candidate, encoded.inputs.candidate),
    }
    columns: dict[str, Any] = {
        "request_id": pa.array([answer.request_id]),
        "at_ms": pa.array([served.at_ms]),
        "version": pa.array([answer.version]),
        "arm": pa.array([answer.arm]),
        "score_version": pa.array([answer.score_version]),
        "user": pa.array([request.user], kinds.get(schema.user_key, pa.string())),
        "context": pa.array([json.dumps(dict(request.context), sort_keys=True)]),
        **_columns(schema.request, encoded.inputs.request),
        **{name: _one_list(each) for name, each in candidates.items()},
    }
    encoded_with = EncodedWith(schema_fingerprint=model.bundle.manifest.schema_fingerprint, encoding="served")
    metadata = {**encoded_with.metadata(), CANDIDATES_KEY: json.dumps(list(candidates)).encode()}
    return pa.table(columns).replace_schema_metadata(metadata)


def _one_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def candidate_rows(table: pa.Table) -> pa.Table:
    """A row a candidate, out of rows of the log: what is the request's stands beside each of its candidates."""
    names = json.loads(table.schema.metadata[CANDIDATES_KEY])
    counts = pc.list_value_length(table["item"]).to_numpy()
    rows = pa.array(np.repeat(np.arange(len(counts)), counts))
    columns = {
        name: pc.list_flatten(table[name]) if name in names else table[name].take(rows) for name in table.column_names
    }
    return pa.table(columns).replace_schema_metadata(table.schema.metadata)


def _columns(part: Part, inputs: PartInputs) -> dict[str, Any]:
    """A part's features, as training rows have them."""
    columns: dict[str, Any] = {}
    for place, spec in enumerate(part.ids):
        columns[spec.name] = pa.array(inputs.ids[:, place].astype(np.int32))
    for place, dense in enumerate(part.dense):
        columns[dense.name] = pa.array(np.ascontiguousarray(inputs.dense[:, place]))
    ends = np.cumsum(inputs.list_lengths.sum(axis=1))[:-1]
    for place, (spec, values) in enumerate(zip(part.lists, np.split(inputs.list_values, ends), strict=False)):
        offsets = np.append(0, np.cumsum(inputs.list_lengths[place])).astype(np.int32)
        columns[spec.name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)))
    return columns
