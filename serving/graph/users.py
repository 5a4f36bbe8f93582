"""Whole tables of users in a store that speaks Redis: one encoded blob a user, as `moerank export-users` writes them.

A blob holds encoded features, so its key names the schema by fingerprint: a server never reads what was encoded for
another. Values that outlive a schema are pushed raw instead (see `serving.graph.pushed_features`). Whoever is not in
the store, or everybody while the store does not answer, is looked up in the bundle.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from contract.errors import ConfigError, DataError, UnavailableError
from contract.hashing import Hashes
from features.online.online_table import Lookup, OnlineTable, TableRows
from serving.graph.overgrown_keys import OvergrownKeys
from serving.graph.recent_users import RecentUsers
from serving.graph.user_blob import UserBlob, join

LOG = logging.getLogger("moerank.users")
PAUSE_SECONDS = 1.0
"""How long the store is left alone after it failed, so that not every request waits for it."""
KEEP_USERS = 100_000


class UserStore:
    """A connection to the store; safe to share between threads."""

    def __init__(
        self, url: str, seconds: float = 0.02, *, keep_seconds: float = 0.0, keep_users: int = KEEP_USERS
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: ``redis://HOST:PORT/DATABASE``, ``rediss://`` for TLS, ``unix://PATH``.
            seconds: How long a look-up may take.
            keep_seconds: How long a user that was looked up may be taken for the same; 0: never.
            keep_users: How many such users a model keeps at most.

        Raises:
            ConfigError: not such a URL.
        """
        try:
            self._client: Any = redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds)
        except ValueError as error:
            message = f"{url!r} is not a user store: {error}"
            raise ConfigError(message) from error
        self._overgrown = OvergrownKeys(self._client)
        self._keep = keep_seconds, keep_users
        self._paused_until = 0.0
        self._lock = threading.Lock()
        self.found = 0
        """Users that the store had."""
        self.missed = 0
        """Users that it did not have."""
        self.failed = 0
        """Look-ups that failed or came while the store was left alone."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The content of each key; None where there is none, or too much, or no answer, which is counted."""
        if time.monotonic() >= self._paused_until:
            asked = self._overgrown.without(keys)
            try:
                contents = dict(zip(asked, self._client.mget(asked), strict=True)) if asked else {}
            except redis.RedisError as error:
                if not (isinstance(error, redis.TimeoutError) and self._overgrown.find(asked)):
                    self._paused_until = time.monotonic() + PAUSE_SECONDS
                    LOG.warning("the user store does not answer (%s); bundles alone are used for a while", error)
            else:
                return [contents.get(key) for key in keys]
        with self._lock:
            self.failed += 1
        return [None] * len(keys)

    def append(self, contents: Mapping[bytes, bytes], seconds: int | None = None) -> dict[bytes, int]:
        """Append to what each key holds, atomically, to be forgotten after so many seconds if given; the new lengths.

        Raises:
            UnavailableError: the store does not take them.
        """
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key, content in contents.items():
                    pipeline.append(key, content)
                lengths = pipeline.execute()
                for key in contents if seconds is not None else ():
                    pipeline.expire(key, seconds)
                pipeline.execute()
        except redis.RedisError as error:
            message = f"the user store did not take {len(contents)} values: {error}"
            raise UnavailableError(message) from error
        return dict(zip(contents, lengths, strict=True))

    def replace(self, key: bytes, change: Callable[[bytes], bytes]) -> None:
        """Compare and set: write what `change` makes of the content, again and again until nobody wrote meanwhile.

        Raises:
            UnavailableError: the store does not take it.
        """
        try:
            while True:
                with self._client.pipeline() as pipeline, suppress(redis.WatchError):
                    pipeline.watch(key)
                    before = pipeline.get(key)
                    if before is None:
                        return
                    pipeline.multi()
                    pipeline.set(key, change(before), keepttl=True)
                    pipeline.execute()
                    return
        except redis.RedisError as error:
            message = f"the user store did not take a value: {error}"
            raise UnavailableError(message) from error

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blob of each user's key, None where there is none or the store does not answer."""
        failed = self.failed
        blobs = self.get(keys)
        if self.failed == failed:
            stored = sum(blob is not None for blob in blobs)
            with self._lock:
                self.found += stored
                self.missed += len(blobs) - stored
        return blobs

    def put(self, blobs: Mapping[bytes, bytes], seconds: int | None = None) -> None:
        """Write blobs, to be forgotten after so many seconds if given.

        Raises:
            UnavailableError: the store does not take them.
        """
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key, blob in blobs.items():
                    pipeline.set(key, blob, ex=seconds)
                pipeline.execute()
        except redis.RedisError as error:
            message = f"the user store did not take {len(blobs)} users: {error}"
            raise UnavailableError(message) from error

    def over(self, fingerprint: str) -> Callable[[OnlineTable], Lookup]:
        """What `RequestEncoder.open` takes as `users`, for a schema; each call keeps its own recent users."""
        recent = RecentUsers(*self._keep)
        return lambda table: StoredUsers(self, table, fingerprint, recent)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class StoredUsers:
    """Users from a store, and from the bundle's table where the store has none."""

    def __init__(
        self, store: UserStore, table: OnlineTable, fingerprint: str, recent: RecentUsers | None = None
    ) -> None:
        """Look up blobs of one schema, encoded as the table's rows, but not those of `recent` users."""
        self._store, self._table = store, table
        self._recent = RecentUsers(0.0, 0) if recent is None else recent
        self._prefix = f"moerank:{fingerprint}:user:"
        self.id_names, self.dense_names, self.key_names = table.id_names, table.dense_names, table.key_names
        self._blob = UserBlob(len(table.id_names), len(table.dense_names), len(table.key_names), tuple(table.lists))

    def key(self, user: int) -> bytes:
        """The store's key of a user's hash."""
        return f"{self._prefix}{user:016x}".encode()

    def lookup(self, hashes: Hashes) -> TableRows:
        """As `OnlineTable.lookup`; one MGET for all that are not recent."""
        users = hashes.tolist()
        rows = [self._recent.get(user) for user in users]
        missing = [place for place, row in enumerate(rows) if row is None]
        if missing:
            blobs = self._store.fetch([self.key(users[place]) for place in missing])
            for place, blob in zip(missing, blobs, strict=True):
                row = rows[place] = self._decode(blob)
                if row is not None:
                    self._recent.put(users[place], row)
        pairs = enumerate(rows)
        return join([self._table.lookup(hashes[place : place + 1]) if row is None else row for place, row in pairs])

    def _decode(self, blob: bytes | None) -> TableRows | None:
        try:
            return None if blob is None else self._blob.decode(blob)
        except DataError as error:
            LOG.warning("ignored a user of the user store: %s", error)
            return None

    def encode(self, rows: TableRows) -> bytes:
        """The blob of one user."""
        return self._blob.encode(rows)
