"""The asyncio client of the ranking service, with a deadline and retries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import grpc
from google.protobuf.message import Message
from grpc import aio

from serving.channel import ATTEMPTS, RESPONSES, channel_options, path
from serving.outgoing import Columnar
from serving.query import Query, RankResult, answer_from
from serving.status import FailedCall, error_of
from serving.stubs.moerank.v1 import ranking_pb2

__all__ = ["AsyncRankingClient", "Query", "RankResult"]


class AsyncRankingClient:
    """Calls the ranking service from one event loop. Use it in ``async with`` or await `close`.

    Every method raises a leaf of `MoerankError`: `RequestError` for a refused request, `UnavailableError` where no
    server answers, `DeadlineError` where none answers in time, `OverloadedError`, `ModelNotFoundError`.
    """

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
            aio.insecure_channel(target, options)
            if credentials is None
            else aio.secure_channel(target, credentials, options)
        )

    async def rank(
        self,
        user: int | str | None,
        items: Iterable[int] | Iterable[str],
        context: Mapping[str, Any] | None = None,
        *,
        user_features: Mapping[str, Any] | None = None,
        item_features: Mapping[str, Columnar] | None = None,
        top_k: int = 0,
        model: str = "",
        version: int = 0,
    ) -> RankResult:
        """Predict and rank candidates for one user."""
        query = Query(user, list(items), context, user_features, item_features, top_k)  # type: ignore[arg-type]
        return RankResult(query.items, answer_from(await self._call("Rank", query.message(model, version))))

    async def batch_rank(self, queries: Sequence[Query], *, model: str = "", version: int = 0) -> list[RankResult]:
        """Rank for several users in one call; the answers are in the order of the queries."""
        message = ranking_pb2.BatchRankRequest(requests=[query.message(model, version) for query in queries])
        responses = (await self._call("BatchRank", message)).responses
        return [RankResult(q.items, answer_from(r)) for q, r in zip(queries, responses, strict=True)]

    async def model(self, name: str = "") -> ranking_pb2.Model:
        """Describe a served model; an empty name means the only one."""
        return (await self._call("GetModel", ranking_pb2.GetModelRequest(model=name))).model

    async def models(self) -> list[ranking_pb2.Model]:
        """Describe all served models."""
        return list((await self._call("ListModels", ranking_pb2.ListModelsRequest())).models)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def _call(self, method: str, message: Message) -> Any:
        call = self._channel.unary_unary(
            path(method),
            request_serializer=type(message).SerializeToString,
            response_deserializer=RESPONSES[method].FromString,
        )
        try:
            return await call(message, timeout=self._seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_of(cast("FailedCall", error), self._target) from error
