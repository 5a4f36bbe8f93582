"""The log of served requests: what was asked, what was served, and the features it was served with, as Parquet.

One row a candidate, under ``model=NAME/date=YYYY-MM-DD/hour=HH/``, a file a minute or so many rows. A file's features
have the columns, types and schema fingerprint of training rows, so that rows of the log joined with outcomes are rows
to train on. A thread of its own writes; what it cannot take is dropped and counted, and no answer waits.

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
"""Rows after which a file is closed before its minute is over."""
FILE_SECONDS = 60.0
ROW_COLUMNS = ("request_id", "at_ms", "version", "arm", "score_version", "user", "item", "context", "position")


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
        buffer.rows += table.num_rows

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
    """A row a candidate: who, what, when, each task's prediction, and the features by the names of training rows."""
    model, request, answer = served.model, served.request, served.answer
    encoded, schema = served.encoded, model.bundle.schema
    if encoded.item_rows is not None:
        # It was encoded for prepared items, which stand for the columns of the table.
        encoded = model.encoder.encode(request, pushed=model.pushed)
    count = len(answer.scores)
    kinds = {key.name: pa.string() if key.dtype == "string" else pa.int64() for key in schema.keys}
    position = np.full(count, -1, np.int32)
    position[answer.order] = np.arange(len(answer.order), dtype=np.int32)
    columns: dict[str, Any] = {
        "request_id": pa.repeat(answer.request_id, count),
        "at_ms": pa.array(np.full(count, served.at_ms)),
        "version": pa.array(np.full(count, answer.version)),
        "arm": pa.repeat(answer.arm, count),
        "score_version": pa.repeat(answer.score_version, count),
        "user": pa.array([request.user] * count, kinds.get(schema.user_key, pa.string())),
        "item": pa.array(list(request.items), kinds.get(schema.item_key, pa.int64())),
        "context": pa.repeat(json.dumps(dict(request.context), sort_keys=True), count),
        "position": pa.array(position),
        "score": pa.array(answer.scores),
        **{f"prediction__{task}": pa.array(values) for task, values in answer.predictions.items()},
        **_columns(schema.request, encoded.inputs.request, count),
        **_columns(schema.candidate, encoded.inputs.candidate, count),
    }
    encoded_with = EncodedWith(schema_fingerprint=model.bundle.manifest.schema_fingerprint, encoding="served")
    return pa.table(columns).replace_schema_metadata(encoded_with.metadata())


def _columns(part: Part, inputs: PartInputs, count: int) -> dict[str, Any]:
    """A part's features; those of the request's one row are repeated for every candidate."""
    rows = np.arange(count) if inputs.rows == count else np.zeros(count, np.int64)
    columns: dict[str, Any] = {}
    for place, spec in enumerate(part.ids):
        columns[spec.name] = pa.array(inputs.ids[rows, place].astype(np.int32))
    for place, dense in enumerate(part.dense):
        columns[dense.name] = pa.array(inputs.dense[rows, place])
    ends = np.cumsum(inputs.list_lengths.sum(axis=1))[:-1]
    for place, (spec, values) in enumerate(zip(part.lists, np.split(inputs.list_values, ends), strict=False)):
        offsets = np.append(0, np.cumsum(inputs.list_lengths[place])).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)))
        columns[spec.name] = lists.take(pa.array(rows))
    return columns
