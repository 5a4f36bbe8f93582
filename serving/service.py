"""The ranking service, free of any transport: bytes of a request in, bytes of a response out."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from features.errors import DeadlineError, RequestError
from features.schema import Schema
from serving import wire
from serving.answer import RankAnswer
from serving.model import RankingModel
from serving.registry import Registry
from serving.stubs.moerank.v1 import ranking_pb2

SERVICE_NAME = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name


@dataclass(frozen=True)
class Limits:
    """What one call may ask for."""

    candidates: int = 5000
    """Over all users of a batch."""
    users: int = 256


@dataclass(frozen=True)
class Call:
    """What a transport knows about a call; `expires` is on the clock of `time.monotonic`."""

    request_id: str
    expires: float | None = None

    def require_time(self) -> None:
        """Refuse to begin work that nobody waits for any more.

        Raises:
            DeadlineError: the caller's deadline has passed.
        """
        if self.expires is not None and time.monotonic() >= self.expires:
            message = "the deadline passed before the server came to the request; send fewer at a time or wait longer"
            raise DeadlineError(message)


Handler = Callable[[bytes, Call], bytes]


class RankingService:
    """Answers the methods of ``moerank.v1.RankingService``."""

    name = SERVICE_NAME

    def __init__(self, registry: Registry, limits: Limits | None = None) -> None:
        """Serve a registry's models."""
        self._registry = registry
        self._limits = limits or Limits()

    def handlers(self) -> dict[str, Handler]:
        """Each method's handler; handlers raise leaves of `MoerankError`."""
        return {
            "Rank": self.rank,
            "BatchRank": self.batch_rank,
            "GetModel": self.get_model,
            "ListModels": self.list_models,
        }

    def rank(self, body: bytes, call: Call) -> bytes:
        """RankRequest -> RankResponse."""
        message = wire.parse(ranking_pb2.RankRequest, body)
        self._require_candidates(wire.count_items(message.items), "items")
        return wire.answer_bytes(self._answer(message, call))

    def batch_rank(self, body: bytes, call: Call) -> bytes:
        """BatchRankRequest -> BatchRankResponse."""
        requests = wire.parse(ranking_pb2.BatchRankRequest, body).requests
        if not 0 < len(requests) <= self._limits.users:
            text = f"the batch has {len(requests)} requests; allowed are 1 to {self._limits.users}"
            raise RequestError(text, field="requests")
        self._require_candidates(sum(wire.count_items(request.items) for request in requests), "requests")
        answers = []
        for position, request in enumerate(requests):
            try:
                answers.append(self._answer(request, call))
            except RequestError as error:
                where = f"requests[{position}]"
                text = f"{where}: {error}"
                raise RequestError(text, field=f"{where}.{error.field}") from error
        return wire.batch_bytes(answers)

    def get_model(self, body: bytes, call: Call) -> bytes:
        """GetModelRequest -> GetModelResponse."""
        call.require_time()
        message = wire.parse(ranking_pb2.GetModelRequest, body)
        model = _describe(self._registry.get(message.model))
        return ranking_pb2.GetModelResponse(model=model).SerializeToString()

    def list_models(self, body: bytes, call: Call) -> bytes:
        """ListModelsRequest -> ListModelsResponse."""
        call.require_time()
        wire.parse(ranking_pb2.ListModelsRequest, body)
        models = [_describe(model) for model in self._registry.models()]
        return ranking_pb2.ListModelsResponse(models=models).SerializeToString()

    def _answer(self, message: ranking_pb2.RankRequest, call: Call) -> RankAnswer:
        if wire.count_items(message.items) == 0:
            text = "the request has no candidates; send at least one id in items"
            raise RequestError(text, field="items")
        if message.version < 0:
            text = f"the version is {message.version}; allowed are positive numbers, and 0 for the current one"
            raise RequestError(text, field="version")
        model = self._registry.get(message.model, message.version)
        request = wire.request_from(message)
        call.require_time()
        return model.rank(request, message.top_k)

    def _require_candidates(self, count: int, field: str) -> None:
        if count > self._limits.candidates:
            text = f"the call has {count} candidates; this server allows {self._limits.candidates}, so split the call"
            raise RequestError(text, field=field)


_KINDS = {"binary": ranking_pb2.TASK_KIND_BINARY, "regression": ranking_pb2.TASK_KIND_REGRESSION}
_SIDES = {
    "user": ranking_pb2.SIDE_USER,
    "item": ranking_pb2.SIDE_ITEM,
    "context": ranking_pb2.SIDE_CONTEXT,
    "pair": ranking_pb2.SIDE_PAIR,
}


def _describe(model: RankingModel) -> ranking_pb2.Model:
    manifest, schema = model.bundle.manifest, model.bundle.schema
    return ranking_pb2.Model(
        name=model.name,
        version=model.version,
        tasks=[ranking_pb2.Task(name=t.name, kind=_KINDS[t.kind], unit=t.unit) for t in schema.tasks],
        features=_features(schema),
        schema_fingerprint=manifest.schema_fingerprint,
        score=str(model.score.config),
        score_version=model.score.version,
        git_revision=manifest.git_revision,
        metrics_json=json.dumps(manifest.metrics, sort_keys=True),
    )


def _features(schema: Schema) -> list[ranking_pb2.Feature]:
    return [ranking_pb2.Feature(name=f.name, kind=f.kind, side=_SIDES[f.side]) for f in schema.features]
