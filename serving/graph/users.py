"""Users whose features change between versions of a model: one packed blob a user in a store that speaks Redis.

A blob holds encoded features, so its key names the schema by fingerprint: a server never reads what was encoded for
another. Whoever is not in the store, or everybody while the store does not answer, is looked up in the bundle.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from contract.errors import ConfigError, DataError, RequestError, UnavailableError
from contract.hashing import Hashes, hash_array
from features.online.online_table import Found, Lookup, OnlineTable
from features.online.request_encoder import RankRequest, RequestEncoder
from features.online.request_values import Value
from serving.graph.user_blob import Packing, join

LOG = logging.getLogger("moerank.users")
PAUSE_SECONDS = 1.0
"""How long the store is left alone after it failed, so that not every request waits for it."""


class UserStore:
    """A connection to the store; safe to share between threads."""

    def __init__(self, url: str, seconds: float = 0.02) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: ``redis://HOST:PORT/DATABASE``, ``rediss://`` for TLS, ``unix://PATH``.
            seconds: How long a look-up may take.

        Raises:
            ConfigError: not such a URL.
        """
        try:
            self._client: Any = redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds)
        except ValueError as error:
            message = f"{url!r} is no user store: {error}"
            raise ConfigError(message) from error
        self._paused_until = 0.0
        self._lock = threading.Lock()
        self.found = 0
        """Users that the store had."""
        self.missed = 0
        """Users that it did not have."""
        self.failed = 0
        """Look-ups that failed or came while the store was left alone."""

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The blob of each key, None where there is none or the store does not answer."""
        if time.monotonic() >= self._paused_until:
            try:
                blobs: list[bytes | None] = self._client.mget(keys)
            except redis.RedisError as error:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
                LOG.warning("the user store does not answer (%s); bundles alone are used for a while", error)
            else:
                found = sum(blob is not None for blob in blobs)
                with self._lock:
                    self.found += found
                    self.missed += len(blobs) - found
                return blobs
        with self._lock:
            self.failed += 1
        return [None] * len(keys)

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
        """What `RequestEncoder.open` takes as `users`, for a schema."""
        return lambda table: StoredUsers(self, table, fingerprint)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class StoredUsers:
    """Users from a store, and from the bundle's table where the store has none."""

    def __init__(self, store: UserStore, table: OnlineTable, fingerprint: str) -> None:
        """Look up blobs of one schema, packed as the table's rows."""
        self._store, self._table = store, table
        self._prefix = f"moerank:{fingerprint}:user:"
        self.id_names, self.dense_names, self.key_names = table.id_names, table.dense_names, table.key_names
        self._packing = Packing(len(table.id_names), len(table.dense_names), len(table.key_names), tuple(table.lists))

    def key(self, user: int) -> bytes:
        """The store's key of a user's hash."""
        return f"{self._prefix}{user:016x}".encode()

    def lookup(self, hashes: Hashes) -> Found:
        """As `OnlineTable.lookup`; one MGET for all."""
        blobs = self._store.fetch([self.key(user) for user in hashes.tolist()])
        rows = [self._unpack(blob) for blob in blobs]
        pairs = enumerate(rows)
        return join([self._table.lookup(hashes[place : place + 1]) if row is None else row for place, row in pairs])

    def _unpack(self, blob: bytes | None) -> Found | None:
        try:
            return None if blob is None else self._packing.unpack(blob)
        except DataError as error:
            LOG.warning("ignored a user of the user store: %s", error)
            return None

    def pack(self, found: Found) -> bytes:
        """The blob of one user."""
        return self._packing.pack(found)


class UserWriter:
    """Encodes users' raw features as a bundle does, and writes them to a store."""

    def __init__(self, bundle: Path, store: UserStore) -> None:
        """Open a bundle, or a directory of features.

        Raises:
            DataError: it has no table of users.
        """
        self._tables: list[OnlineTable] = []
        self._encoder = RequestEncoder.open(bundle, self._remember)
        self._store = store
        if not self._tables:
            message = f"{bundle} has no table of users, so there is nothing that a user store could replace"
            raise DataError(message)
        schema = self._encoder.schema
        self._table = self._tables[0]
        self._stored = StoredUsers(store, self._table, schema.fingerprint())
        kinds = {key.name: key.dtype for key in schema.keys}
        self._any_item: int | str = "" if kinds.get(schema.item_key) == "string" else 0
        self._kind = kinds[schema.user_key]

    def put(self, users: Mapping[int | str, Mapping[str, Value]], seconds: int | None = None) -> None:
        """Write users' features by name; those not given are as in the bundle. Forget them after so many seconds.

        Raises:
            RequestError: an unknown feature, or a value that cannot be encoded.
            UnavailableError: the store does not take them.
        """
        blobs = {}
        for user, features in users.items():
            (hashed,) = self._hashes(user)
            blobs[self._stored.key(int(hashed))] = self._stored.pack(self._encode(user, features))
        self._store.put(blobs, seconds)

    def _hashes(self, user: int | str) -> Hashes:
        return hash_array(pa.array([user], type=pa.string() if self._kind == "string" else pa.int64()))

    def _encode(self, user: int | str, features: Mapping[str, Value]) -> Found:
        """What a request with these features would look up, were they the table's."""
        table = self._table
        held = {*table.id_names, *table.dense_names, *table.key_names, *table.lists}
        for name in features.keys() - held:
            message = f"users of this model have no stored feature {name!r}; allowed are: {', '.join(sorted(held))}"
            raise RequestError(message, field=name)
        request = RankRequest(user, [self._any_item], user_features=features)
        inputs = self._encoder.encode(request).inputs.request
        part = self._encoder.schema.request
        ids = {spec.name: i for i, spec in enumerate(part.ids)}
        dense = {spec.name: i for i, spec in enumerate(part.dense)}
        lengths = inputs.list_lengths[:, 0]
        packed = np.split(inputs.list_values, np.cumsum(lengths)[:-1]) if part.lists else []
        lists = {spec.name: packed[i].astype(np.int32) for i, spec in enumerate(part.lists)}
        keys = table.lookup(self._hashes(user)).key_hashes.copy()
        for place, name in enumerate(table.key_names):
            if name in features:
                keys[:, place] = hash_array(pa.array([features[name]]))
        return Found(
            known=np.ones(1, dtype=np.bool_),
            ids=inputs.ids[:, [ids[name] for name in table.id_names]].astype(np.int32),
            dense=inputs.dense[:, [dense[name] for name in table.dense_names]],
            key_hashes=keys,
            lists={name: (lists[name], np.array([len(lists[name])])) for name in table.lists},
        )

    def _remember(self, table: OnlineTable) -> Lookup:
        self._tables.append(table)
        return table
