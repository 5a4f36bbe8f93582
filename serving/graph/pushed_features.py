"""Features that are pushed between versions of a model: raw values in a store that speaks Redis, merged by field.

Under the key of a user, an item or a pair lie `PushedFeatures` messages (proto/moerank/v1/ranking.proto), one behind
the other, as Redis's APPEND puts them there: two such messages are one with the features of both, and of several values
of one feature that with the newest time counts. So writers merge without reading, in any language. Values are raw and
keys name no schema: what was pushed outlives every retraining, and is encoded as the model that reads it was trained.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from contract.errors import RequestError
from contract.hashing import NULL_HASH, Hashes
from features.encode.moment_values import Value
from features.online.given_values import Id
from features.online.pushed_values import PushedColumn
from serving.graph.message_values import value_from
from serving.graph.overgrown_keys import LARGEST_BYTES
from serving.graph.users import UserStore
from serving.stubs.moerank.v1 import ranking_pb2

LOG = logging.getLogger("moerank.pushed")
Kind = Literal["user", "item", "pair"]
COMPACT_BYTES = 4096
"""A value that has grown beyond it is written again with the newest of each feature alone."""


def entity_key(kind: Literal["user", "item"], identity: Id) -> bytes:
    """The store's key of a user or an item: ``moerank:user:ID``."""
    return f"moerank:{kind}:{identity}".encode()


def pair_key(keys: Sequence[str], combined: int) -> bytes:
    """The store's key of a tuple of keys, from the combined hash of their values: ``moerank:pair:user,tag:HEX16``."""
    return f"moerank:pair:{','.join(keys)}:{combined:016x}".encode()


def newest(content: bytes) -> dict[str, ranking_pb2.PushedFeature]:
    """The newest value of each feature; of two of one time, the one that was appended last.

    Raises:
        DecodeError: not such messages.
    """
    features: dict[str, ranking_pb2.PushedFeature] = {}
    for feature in ranking_pb2.PushedFeatures.FromString(content).features:
        before = features.get(feature.name)
        if before is None or feature.at_ms >= before.at_ms:
            features[feature.name] = feature
    return features


class PushCounts:
    """What was read: by outcome, and how old it was; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        """Values by what became of them: ``used``, ``stale``, ``refused``, ``damaged``."""
        self.age_seconds = 0.0
        """The sum over used values."""
        self.newest_ms = 0
        """The newest time that any value had."""

    def add(self, outcome: str, count: int = 1, age_seconds: float = 0.0, newest_ms: int = 0) -> None:
        """Count values."""
        with self._lock:
            self.outcomes[outcome] += count
            self.age_seconds += age_seconds
            self.newest_ms = max(self.newest_ms, newest_ms)


class PushedReader:
    """Looks pushed values up, one MGET per request (and one more for pairs)."""

    def __init__(self, store: UserStore, kinds: Iterable[str], max_age_seconds: float = 0.0) -> None:
        """Ask for these kinds; values older than the bound count as if they were not there, 0 for no bound."""
        self._store = store
        self._kinds = frozenset(kinds)
        self._max_age_ms = max_age_seconds * 1000
        self._warned: set[str] = set()
        self.counts = PushCounts()

    def entities(self, user: Id | None, items: Sequence[Id]) -> Iterator[PushedColumn]:
        """As `PushedSource.entities`."""
        users = [] if user is None or "user" not in self._kinds else [user]
        wanted = items if "item" in self._kinds else []
        keys = [entity_key("user", each) for each in users] + [entity_key("item", each) for each in wanted]
        contents = self._store.get(keys) if keys else []
        yield from self._columns("user", contents[: len(users)])
        yield from self._columns("item", contents[len(users) :])

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterator[PushedColumn]:
        """As `PushedSource.pairs`."""
        if "pair" in self._kinds:
            words = [pair_key(keys, word) if word != NULL_HASH else b"moerank:none" for word in hashes.tolist()]
            yield from self._columns(side, self._store.get(words))

    def refuse(self, name: str, error: RequestError) -> None:
        """As `PushedSource.refuse`: counted, and logged once per feature."""
        self.counts.add("refused")
        if name not in self._warned:
            self._warned.add(name)
            LOG.warning("left out what was pushed of %s: %s", name, error)

    def _columns(self, side: Literal["user", "item"], contents: Sequence[bytes | None]) -> Iterator[PushedColumn]:
        rows: dict[str, list[int]] = {}
        values: dict[str, list[Value]] = {}
        stale: dict[str, list[int]] = {}
        for row, content in enumerate(contents):
            fresh, too_old = self._by_age(content) if content else ({}, [])
            for name, value in fresh.items():
                rows.setdefault(name, []).append(row)
                values.setdefault(name, []).append(value)
            for name in too_old:
                stale.setdefault(name, []).append(row)
        for name, places in rows.items():
            yield PushedColumn(side, name, np.array(places), values[name])
        for name, places in stale.items():
            yield PushedColumn(side, name, np.array(places), (), is_stale=True)

    def _by_age(self, content: bytes) -> tuple[dict[str, Value], list[str]]:
        """The values that are fresh, and the names of those that are too old."""
        now = time.time() * 1000
        fresh: dict[str, Value] = {}
        stale: list[str] = []
        if len(content) > LARGEST_BYTES:
            self.counts.add("damaged")
            return fresh, stale
        try:
            features = newest(content)
            for name, feature in features.items():
                if self._max_age_ms and now - feature.at_ms > self._max_age_ms:
                    self.counts.add("stale", newest_ms=feature.at_ms)
                    stale.append(name)
                else:
                    fresh[name] = value_from(name, feature.value)
                    self.counts.add("used", 1, max(now - feature.at_ms, 0.0) / 1000, feature.at_ms)
        except Exception as error:  # noqa: BLE001 whatever others wrote there, requests are answered
            self.counts.add("damaged")
            LOG.warning("left out a pushed value that cannot be read: %s", error)
        return fresh, stale


def pushed_message(features: Mapping[str, ranking_pb2.Value], at_ms: int) -> bytes:
    """What to append for features of one entity."""
    return ranking_pb2.PushedFeatures(
        features=[ranking_pb2.PushedFeature(name=name, value=value, at_ms=at_ms) for name, value in features.items()]
    ).SerializeToString()
