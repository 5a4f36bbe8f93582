"""The asyncio client of the ranking service, with a deadline and retries."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import grpc
from google.protobuf.message import Message
from grpc import aio

from serving.client.attempts import CallOptions, Pause, Send
from serving.client.client_request import listed
from serving.client.client_response import Query, RankResult, answer_from
from serving.client.connection import Connection
from serving.graph.arrays import Columnar
from serving.stubs.moerank.v1 import ranking_pb2

__all__ = ["AsyncRankingClient", "Query", "RankResult"]


class AsyncRankingClient(Connection):
    """Calls the ranking service from one event loop. Use it in ``async with`` or await `close`.

    Every method raises a leaf of `MoerankError`: `RequestError` for a refused request, `UnavailableError` where no
    server answers, `DeadlineError` where none answers in time, `OverloadedError`, `ModelNotFoundError`.
    """

    grpc_module: ClassVar[Any] = aio

    async def rank(  # noqa: PLR0913 what one call may say
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
        debug: bool = False,
        score: str = "",
        greedy: bool = False,
        options: CallOptions | None = None,
    ) -> RankResult:
        """Predict and rank candidates for one user; `debug` asks which experts and values the answer takes, too.

        `score` names the formula to order by, where the server has several; `greedy` asks not to explore.
        """
        query = Query(user, listed(items), context, user_features, item_features, top_k, debug, score, greedy)
        return RankResult(query.items, answer_from(await self._call("Rank", query.message(model, version), options)))

    async def batch_rank(
        self, queries: Sequence[Query], *, model: str = "", version: int = 0, options: CallOptions | None = None
    ) -> list[RankResult]:
        """Rank for several users in one call; the answers are in the order of the queries."""
        message = ranking_pb2.BatchRankRequest(requests=[query.message(model, version) for query in queries])
        responses = (await self._call("BatchRank", message, options)).responses
        return [RankResult(q.items, answer_from(r)) for q, r in zip(queries, responses, strict=True)]

    async def model(self, name: str = "") -> ranking_pb2.Model:
        """Describe a served model; an empty name means the only one."""
        return (await self._call("GetModel", ranking_pb2.GetModelRequest(model=name))).model

    async def models(self) -> list[ranking_pb2.Model]:
        """Describe all served models."""
        return list((await self._call("ListModels", ranking_pb2.ListModelsRequest())).models)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(each.channel.close(None) for each in self._channels))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: str, message: Message, options: CallOptions | None = None) -> Any:
        steps = self._steps(options)
        outcome: Any = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                else:
                    outcome = await self._attempt(method, message, step)
        except StopIteration as done:
            return done.value

    async def _attempt(self, method: str, message: Message, step: Send) -> Any:
        """The response, or what grpcio raises; of hedged calls the first response."""
        calls = [asyncio.ensure_future(self._answer(method, message, step))]
        try:
            if step.hedge_seconds is not None:
                done, _ = await asyncio.wait(calls, timeout=step.hedge_seconds)
                if not done:
                    calls.append(asyncio.ensure_future(self._answer(method, message, step)))
            waiting = set(calls)
            outcome: Any = None
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                outcome = next(iter(done)).result()
                if not isinstance(outcome, Exception):
                    break
            return outcome
        finally:
            for call in calls:
                call.cancel()

    async def _answer(self, method: str, message: Message, step: Send) -> Any:
        with self._least_busy() as methods:
            try:
                return await methods[method](message, timeout=step.seconds, metadata=step.metadata)
            except grpc.RpcError as error:
                return error
