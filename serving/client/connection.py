"""A client's channel to the ranking service, and how its methods are called over it."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import grpc
from google.protobuf.message import Message

from serving.client.attempts import CallOptions, Step, attempts
from serving.client.channel import ATTEMPTS, RESPONSES, channel_options, path


class Connection:
    """What the synchronous and the asyncio client share; `grpc_module` makes the channel."""

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
    ) -> None:
        """Prepare a channel to ``HOST:PORT``; the first call connects.

        Args:
            target: Where the server listens, in gRPC's naming (``dns:///ranker:50051`` spreads over addresses).
            seconds: Deadline of each call, retries included.
            attempts: How often a call is tried while no server is available, or a server asks to come later.
            credentials: None for plaintext.
            metadata: Sent with each call, such as an authorization header.
            hedge_seconds: When to send a call once more, where its `CallOptions` do not say. With deadlines under 4
                seconds only this saves a call that waits for a server that froze.
        """
        options = channel_options()
        self._target = target
        self._seconds = seconds
        self._attempts = max(attempts, 1)
        self._metadata = tuple(metadata)
        self._hedge_seconds = hedge_seconds
        self._channel = (
            self.grpc_module.insecure_channel(target, options)
            if credentials is None
            else self.grpc_module.secure_channel(target, credentials, options)
        )
        self._methods = {
            name: self._channel.unary_unary(
                path(name), request_serializer=_serialized, response_deserializer=response.FromString
            )
            for name, response in RESPONSES.items()
        }

    def _steps(self, options: CallOptions | None) -> Generator[Step, Any, Any]:
        """What to do for one call."""
        options = options or CallOptions()
        if options.hedge_seconds is None:
            options = replace(options, hedge_seconds=self._hedge_seconds)
        return attempts(self._target, self._attempts, self._seconds, self._metadata, options)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
