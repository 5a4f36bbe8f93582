"""A client's channel to the ranking service, and how its methods are called over it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import grpc
from google.protobuf.message import Message

from serving.client.channel import ATTEMPTS, RESPONSES, channel_options, path


class Connection:
    """What the synchronous and the asyncio client share; `transport` is the module that makes the channel."""

    transport: ClassVar[Any] = grpc

    def __init__(
        self,
        target: str,
        *,
        seconds: float = 5.0,
        attempts: int = ATTEMPTS,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Prepare a channel to ``HOST:PORT``; the first call connects.

        Args:
            target: Where the server listens, in gRPC's naming (``dns:///ranker:50051`` spreads over addresses).
            seconds: Deadline of each call, retries included.
            attempts: How often a call is tried while the server is unavailable; 1 does not retry.
            credentials: None for plaintext.
            metadata: Sent with each call, such as an authorization header.
        """
        options = channel_options(attempts)
        self._target = target
        self._seconds = seconds
        self._metadata = tuple(metadata)
        self._channel = (
            self.transport.insecure_channel(target, options)
            if credentials is None
            else self.transport.secure_channel(target, credentials, options)
        )

    def _send(self, method: str, message: Message) -> Any:
        """Start a call: gives the response, or over asyncio what to await for it."""
        call = self._channel.unary_unary(
            path(method),
            request_serializer=type(message).SerializeToString,
            response_deserializer=RESPONSES[method].FromString,
        )
        return call(message, timeout=self._seconds, metadata=self._metadata)
