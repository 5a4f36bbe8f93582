"""A client's channels to the ranking service, and how its methods are called over them."""

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import grpc
from google.protobuf.message import Message

from contract.errors import RequestError
from serving.client.attempts import CallOptions, Step, attempts
from serving.client.channel import ATTEMPTS, RESPONSES, authority_options, channel_options, path

Methods = Mapping[str, Any]
"""What grpcio makes of a channel's methods, by name."""


class _Channel:
    """One channel, its methods by name, and what it is busy with."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.calls = self.turn = 0
        self.methods: Methods = {
            name: channel.unary_unary(
                path(name), request_serializer=_serialized, response_deserializer=response.FromString
            )
            for name, response in RESPONSES.items()
        }


class Connection:
    """What the synchronous and the asyncio client share; `grpc_module` makes the channels."""

    grpc_module: ClassVar[Any] = grpc

    def __init__(
        self,
        target: str,
        *,
        seconds: float = 5.0,
        attempts: int = ATTEMPTS,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        hedge_seconds: float | None = None,
        connections: int = 1,
    ) -> None:
        """Prepare to call ``HOST:PORT``; the first call connects.

        Args:
            target: Where the server listens, in gRPC's naming (``dns:///ranker:50051`` spreads over addresses).
            seconds: Deadline of each call, retries included.
            attempts: How often a call is tried while no server is available, or a server asks to come later.
            credentials: None for plaintext.
            metadata: Sent with each call, such as an authorization header.
            hedge_seconds: When to send a call once more, where its `CallOptions` do not say. With deadlines under 4
                seconds only this saves a call that waits for a server that froze.
            connections: How many the client holds to each address; each call takes the one with the fewest calls under
                way. A server of several processes answers all calls of one connection with one process.

        Raises:
            RequestError: `connections` is no whole number of at least 1.
        """
        if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
            message = f"connections is {connections!r}; allowed are whole numbers from 1"
            raise RequestError(message, field="connections")
        # Over TLS a certificate is checked against that name, which is the caller's to say.
        options = channel_options() + ([] if credentials else authority_options(target))
        self._target = target
        self._seconds = seconds
        self._attempts = max(attempts, 1)
        self._metadata = tuple(metadata)
        self._hedge_seconds = hedge_seconds
        self._lock, self._turns = threading.Lock(), count(1)
        self._channels = [_Channel(self._made(target, credentials, options)) for _ in range(connections)]

    def _made(
        self, target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]]
    ) -> Any:
        if credentials is None:
            return self.grpc_module.insecure_channel(target, options)
        return self.grpc_module.secure_channel(target, credentials, options)

    @contextmanager
    def _least_busy(self) -> Iterator[Methods]:
        """The methods of the channel with the fewest calls under way, the longest unused of several."""
        with self._lock:
            chosen = min(self._channels, key=lambda each: (each.calls, each.turn))
            chosen.calls += 1
            chosen.turn = next(self._turns)
        try:
            yield chosen.methods
        finally:
            with self._lock:
                chosen.calls -= 1

    def _steps(self, options: CallOptions | None) -> Generator[Step, Any, Any]:
        """What to do for one call."""
        options = options or CallOptions()
        if options.hedge_seconds is None:
            options = replace(options, hedge_seconds=self._hedge_seconds)
        return attempts(self._target, self._attempts, self._seconds, self._metadata, options)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
