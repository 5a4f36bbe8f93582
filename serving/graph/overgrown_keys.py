"""Keys of the user store that hold too much to be fetched: one of them must not keep everybody's values away.

A writer that only appends makes a key grow without end. Fetching some megabytes takes longer than a look-up may take,
which looks like a store that does not answer.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import redis

LOG = logging.getLogger("moerank.users")
LARGEST_BYTES = 1 << 20
"""What a key may hold; its writers should have rewritten it long before."""
LEFT_OUT_SECONDS = 60.0
"""How long such a key is left out before it is looked at again."""


class OvergrownKeys:
    """The keys that were found to hold too much, for a time."""

    def __init__(self, client: Any) -> None:
        """Look at the keys through `client`, a connection of the redis library."""
        self._client = client
        self._until: dict[bytes, float] = {}

    def without(self, keys: Sequence[bytes]) -> list[bytes]:
        """The keys that may be fetched."""
        now = time.monotonic()
        return [key for key in keys if self._until.get(key, 0.0) <= now] if self._until else list(keys)

    def find(self, keys: Sequence[bytes]) -> bool:
        """Whether one of the keys, which could not be fetched in time, holds too much; it is left out from now on."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.strlen(key)
                sizes = pipeline.execute(raise_on_error=False)
        except redis.RedisError:
            return False
        now = time.monotonic()
        sizes_of = dict(zip(keys, sizes, strict=True))
        found = {key: size for key, size in sizes_of.items() if isinstance(size, int) and size > LARGEST_BYTES}
        for key, size in found.items():
            LOG.warning(
                "%r of the user store holds %d bytes, more than the %d that are read; rewrite it",
                key,
                size,
                LARGEST_BYTES,
            )
        kept = {key: until for key, until in self._until.items() if until > now}
        self._until = kept | dict.fromkeys(found, now + LEFT_OUT_SECONDS)
        return bool(found)
