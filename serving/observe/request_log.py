"""Writes the log of served requests: answers wait in bounded memory for a thread of its own, and no answer waits.

What the thread or the target cannot take is dropped and counted. A file is written each minute or after so many
candidates, whole or not at all, under ``model=NAME/date=YYYY-MM-DD/hour=HH/``; see `features.served.log_format`.
"""

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

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import RequestError
from contract.files import place
from contract.hashing import hash_text
from features.online.request_encoder import EncodedRequest, RankRequest
from features.served.log_format import ENCODING_FILES, ENCODINGS_FOLDER
from serving.graph.answer import RankAnswer
from serving.graph.served_model import RankingModel
from serving.observe.served_request import ServedRequest, by_version, table_of, with_features
from serving.store.remote_files import RemoteFiles

LOG = logging.getLogger("moerank.log")
WAITING = 1024
"""Answers that may wait for the thread."""
WAITING_ROWS = 250_000
"""Candidates that may be in memory, whether they wait for the thread or for their file."""
FILE_ROWS = 100_000
"""Candidates after which a file is closed before its minute is over."""
FILE_SECONDS = 60.0
TOGETHER = 32
"""Answers that become a table at once: more at a time keep the interpreter longer from those who answer."""
GATHER_SECONDS = 0.5
"""How long the first of them waits for others: a table of one answer costs as much as one of twenty."""


@dataclass
class _Buffer:
    """Tables of one version that wait to be written."""

    model: RankingModel
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
        self._described: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._rows = 0
        self._files = 0
        self.counts: Counter[str] = Counter()
        """Requests: ``written``, ``dropped`` since too many waited, ``failed`` since the target did not take them."""
        self._thread = threading.Thread(target=self._run, name="moerank-log", daemon=True)
        self._thread.start()

    def offer(
        self, model: RankingModel, request: RankRequest, encoded: EncodedRequest | None, answer: RankAnswer
    ) -> None:
        """Log an answer if it falls into the share; drop it where too many wait.

        What was not `encoded`, since a fallback answered, the thread encodes: the caller has no time for that.
        """
        if self._share < 1 and hash_text(answer.request_id) >= self._share * 2**64:
            return
        served = ServedRequest(model, request, encoded, answer, time.time_ns() // 1_000_000)
        with self._lock:
            fits = self._rows + served.rows <= WAITING_ROWS
            self._rows += served.rows if fits else 0
        try:
            if fits:
                self._queue.put_nowait(served)
                return
        except queue.Full:
            self._forget(served.rows)
        self._count("dropped", 1)

    def close(self) -> None:
        """Write what was offered, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _count(self, outcome: str, requests: int) -> None:
        with self._lock:
            self.counts[outcome] += requests

    def _forget(self, rows: int) -> None:
        with self._lock:
            self._rows -= rows

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._next()
            for same_version in by_version(batch).values():
                if ready := self._encoded(same_version):
                    self._take(ready)
            self._flush(list(self._buffers) if ended else self._due())

    def _next(self) -> tuple[list[ServedRequest], bool]:
        """Some of the answers that wait, and whether no more will come; nothing after a while without any."""
        batch: list[ServedRequest] = []
        patience = self._seconds / 4
        end = time.monotonic() + patience
        while len(batch) < TOGETHER:
            try:
                served = self._queue.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            if served is None:
                return batch, True
            if not batch:
                end = time.monotonic() + min(GATHER_SECONDS, patience)
            batch.append(served)
        return batch, False

    def _encoded(self, batch: list[ServedRequest]) -> list[ServedRequest]:
        """Those that have features, or can be given them; a fallback's request was not looked at as a whole."""
        ready = []
        for served in batch:
            try:
                ready.append(with_features(served))
            except RequestError as error:
                LOG.warning(
                    "the answer %s is not logged, since it has no features: %s", served.answer.request_id, error
                )
                self._count("failed", 1)
                self._forget(served.rows)
        return ready

    def _take(self, batch: list[ServedRequest]) -> None:
        rows = sum(served.rows for served in batch)
        try:
            table = table_of(batch)
        except Exception:
            # A defect here must not end the log, nor the server.
            LOG.exception("%d answers could not be logged", len(batch))
            self._count("failed", len(batch))
            self._forget(rows)
            return
        model = batch[0].model
        buffer = self._buffers.setdefault((model.name, model.version), _Buffer(model))
        buffer.tables.append(table)
        buffer.rows += rows

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
            requests = sum(map(len, buffer.tables))
            try:
                self._describe(buffer.model)
                self._write(buffer.model.name, pa.concat_tables(buffer.tables))
                self._count("written", requests)
            except Exception as error:  # noqa: BLE001 a full disk or a store that is away must not end the server
                self._count("failed", requests)
                LOG.error("%d logged answers are lost: %s", requests, error)  # noqa: TRY400
            finally:
                self._forget(buffer.rows)

    def _describe(self, model: RankingModel) -> None:
        """Put beside the log what a version's features are encoded with, once a schema."""
        fingerprint = model.bundle.manifest.schema_fingerprint
        if (model.name, fingerprint) in self._described:
            return
        for name in ENCODING_FILES:
            source = model.bundle.path / name
            if source.is_file():
                self._put(source, f"model={model.name}/{ENCODINGS_FOLDER}/{fingerprint}/{name}")
        self._described.add((model.name, fingerprint))

    def _write(self, model: str, table: pa.Table) -> None:
        now = datetime.now(UTC)
        self._files += 1
        folder = f"model={model}/date={now:%Y-%m-%d}/hour={now:%H}"
        with TemporaryDirectory(prefix="moerank-log-") as scratch:
            local = Path(scratch) / "rows.parquet"
            pq.write_table(table, local, compression="zstd", write_page_checksum=True)
            self._put(local, f"{folder}/{now:%M%S}-{socket.gethostname()}-{os.getpid()}-{self._files}.parquet")

    def _put(self, source: Path, name: str) -> None:
        """A finished file to its place, in one step."""
        if self._remote is None:
            place(source, Path(self._target) / name)
        else:
            self._remote.upload(source, name)
