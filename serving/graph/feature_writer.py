"""Pushes fresh features of users, items and pairs, raw, to the store that servers read."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from contract.errors import DataError
from contract.hashing import combine, hash_array
from contract.schema import Schema
from features.encode.moment_values import Value
from features.online.given_values import GivenValues, Id
from serving.graph.pushed_features import COMPACT_BYTES, entity_key, newest, pair_key, pushed_message
from serving.graph.users import UserStore
from serving.stubs.moerank.v1 import ranking_pb2


class FeatureWriter:
    """Writes raw values under keys that no retraining changes; several writers may write to one entity at once."""

    def __init__(self, directory: Path, store: UserStore) -> None:
        """Check what is written against the schema of a bundle, or of a directory of features.

        Raises:
            DataError: it has no schema.
        """
        self._schema = Schema.load(directory)
        self._given = GivenValues(self._schema)
        self._store = store

    def put_users(
        self, users: Mapping[Id, Mapping[str, Value]], seconds: int | None = None, at_ms: int | None = None
    ) -> None:
        """Write features by user and name; those not given stay as they are.

        Args:
            users: By id, the values by name.
            seconds: Forget the whole user after so long.
            at_ms: When the values were true, in milliseconds since 1970; default: now.

        Raises:
            RequestError: an unknown feature, or a value that cannot be encoded; nothing is written then.
            UnavailableError: the store does not take them.
        """
        self._put({entity_key("user", user): features for user, features in users.items()}, "user", seconds, at_ms)

    def put_items(
        self, items: Mapping[Id, Mapping[str, Value]], seconds: int | None = None, at_ms: int | None = None
    ) -> None:
        """As `put_users`, for items: price, stock, a fresh count."""
        self._put({entity_key("item", item): features for item, features in items.items()}, "item", seconds, at_ms)

    def put_pairs(
        self,
        keys: Sequence[str],
        pairs: Mapping[tuple[Id, ...], Mapping[str, Value]],
        seconds: int | None = None,
        at_ms: int | None = None,
    ) -> None:
        """As `put_users`, for features that hang on several keys, named in the schema's order.

        Raises:
            DataError: this model has no features of these keys.
        """
        specs = [spec for spec in self._schema.features if spec.keys == tuple(keys) and spec.side == "pair"]
        if not specs:
            known = sorted({",".join(spec.keys) for spec in self._schema.features if spec.side == "pair"})
            message = f"no feature hangs on {','.join(keys)}; there are {'; '.join(known) or 'none'}"
            raise DataError(message)
        side: Literal["user", "item"] = "user" if self._schema.part_of(specs[0]) == "request" else "item"
        contents = {}
        for values, features in pairs.items():
            words = [hash_array(pa.array([value])) for value in values]
            contents[pair_key(keys, int(combine(words)[0]))] = features
        self._put(contents, side, seconds, at_ms)

    def _put(
        self,
        entities: Mapping[bytes, Mapping[str, Value]],
        side: Literal["user", "item"],
        seconds: int | None,
        at_ms: int | None,
    ) -> None:
        moment = int(time.time() * 1000) if at_ms is None else at_ms
        contents = {}
        for key, features in entities.items():
            for name, value in features.items():
                self._given.columns(name, (value,), side, name)
            contents[key] = pushed_message({name: _message(value) for name, value in features.items()}, moment)
        for key, length in self._store.append(contents, seconds).items():
            if length > COMPACT_BYTES:
                self._store.replace(key, _compacted)


def _compacted(content: bytes) -> bytes:
    return ranking_pb2.PushedFeatures(features=newest(content).values()).SerializeToString()


def _message(value: Value) -> ranking_pb2.Value:
    """A plain value as a message; what it may be was checked before."""
    if isinstance(value, list | tuple):
        return ranking_pb2.Value(values=ranking_pb2.ValueList(values=[_message(each) for each in value]))
    if value is None:
        return ranking_pb2.Value(null=ranking_pb2.NULL_UNSPECIFIED)
    if isinstance(value, bool | np.bool_):
        return ranking_pb2.Value(flag=bool(value))
    if isinstance(value, str):
        return ranking_pb2.Value(text=value)
    return ranking_pb2.Value(integer=value) if isinstance(value, int) else ranking_pb2.Value(number=float(value))
