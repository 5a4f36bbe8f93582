"""The synchronous client of the ranking service, with a deadline and retries."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from serving.client.attempts import CallOptions, Pause, Send
from serving.client.channel import unreachable
from serving.client.client_request import listed
from serving.client.client_response import Query, RankResult, answer_from
from serving.client.connection import Connection
from serving.graph.arrays import Columnar
from serving.stubs.moerank.v1 import ranking_pb2

__all__ = ["Query", "RankResult", "RankingClient"]


class RankingClient(Connection):
    """Calls the ranking service; safe to share between threads. Use it in ``with`` or call `close`.

    Every method raises a leaf of `MoerankError`: `RequestError` for a refused request, `UnavailableError` where no
    server answers, `DeadlineError` where none answers in time, `OverloadedError`, `ModelNotFoundError`.
    """

    def rank(  # noqa: PLR0913 what one call may say
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
        return RankResult(query.items, answer_from(self._call("Rank", query.message(model, version), options)))

    def batch_rank(
        self, queries: Sequence[Query], *, model: str = "", version: int = 0, options: CallOptions | None = None
    ) -> list[RankResult]:
        """Rank for several users in one call; the answers are in the order of the queries."""
        message = ranking_pb2.BatchRankRequest(requests=[query.message(model, version) for query in queries])
        responses = self._call("BatchRank", message, options).responses
        return [RankResult(q.items, answer_from(r)) for q, r in zip(queries, responses, strict=True)]

    def model(self, name: str = "") -> ranking_pb2.Model:
        """Describe a served model; an empty name means the only one."""
        return self._call("GetModel", ranking_pb2.GetModelRequest(model=name)).model

    def models(self) -> list[ranking_pb2.Model]:
        """Describe all served models."""
        return list(self._call("ListModels", ranking_pb2.ListModelsRequest()).models)

    def wait_until_ready(self, seconds: float) -> None:
        """Return as soon as a server has accepted every connection of this client.

        Raises:
            UnavailableError: none did in time.
        """
        ready = [grpc.channel_ready_future(each.channel) for each in self._channels]
        end = time.monotonic() + seconds
        try:
            for each in ready:
                each.result(timeout=max(end - time.monotonic(), 0.0))
        except grpc.FutureTimeoutError as error:
            raise unreachable(self._target, seconds) from error

    def close(self) -> None:
        """Close the connections."""
        for each in self._channels:
            each.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, message: Message, options: CallOptions | None = None) -> Any:
        steps = self._steps(options)
        outcome: Any = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                else:
                    outcome = self._attempt(method, message, step)
        except StopIteration as done:
            return done.value

    def _attempt(self, method: str, message: Message, step: Send) -> Any:
        """The response, or what grpcio raises; of hedged calls the first response."""
        how = {"timeout": step.seconds, "metadata": step.metadata}
        if step.hedge_seconds is not None:
            return self._hedged(method, message, how, step.hedge_seconds)
        with self._least_busy() as methods:
            try:
                return methods[method](message, **how)
            except grpc.RpcError as error:
                return error

    def _hedged(self, method: str, message: Message, how: Mapping[str, Any], after: float) -> Any:
        """The first response of two calls, the second made only after so many seconds."""
        ended: SimpleQueue[Any] = SimpleQueue()
        calls: list[Any] = []
        with ExitStack() as busy:

            def send() -> None:
                calls.append(busy.enter_context(self._least_busy())[method].future(message, **how))
                calls[-1].add_done_callback(ended.put)

            send()
            try:
                first = ended.get(timeout=after)
            except Empty:
                send()
                first = ended.get()
                if first.code() is not grpc.StatusCode.OK:
                    first = ended.get()
            for call in calls:
                call.cancel()
        # Its own class is an exception of grpcio.
        return first.result() if first.code() is grpc.StatusCode.OK else first
