"""The ranking service, free of any transport: bytes of a request in, bytes of a response out."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from contract.errors import RequestError
from contract.schema import DenseSpec, FeatureSpec, Schema
from serving.api import codec_rank
from serving.api.batching import PendingRequest, runs_of
from serving.api.degradation import Degradation
from serving.graph.answer import RankAnswer
from serving.graph.context import CallContext, Handler
from serving.graph.served_model import RankingModel
from serving.graph.stages import FALLBACK_STAGE, FEWER_STAGE
from serving.observe.request_log import RequestLog
from serving.observe.telemetry import Telemetry
from serving.registry.registry import Registry
from serving.registry.shadow import Shadows
from serving.stubs.moerank.v1 import ranking_pb2

SERVICE_NAME = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name


@dataclass(frozen=True)
class Limits:
    """What one call may ask for."""

    candidates: int = 5000
    """Over all users of a batch."""
    users: int = 256

    def require_candidates(self, count: int, field: str) -> None:
        """Refuse too many candidates.

        Raises:
            RequestError: naming the field.
        """
        if count > self.candidates:
            text = f"the call has {count} candidates; this server allows {self.candidates}, so split the call"
            raise RequestError(text, field=field)


class RankingService:
    """Answers the methods of ``moerank.v1.RankingService``."""

    name = SERVICE_NAME

    def __init__(
        self,
        registry: Registry,
        telemetry: Telemetry,
        limits: Limits | None = None,
        shadows: Shadows | None = None,
        log: RequestLog | None = None,
        degradation: Degradation | None = None,
    ) -> None:
        """Serve a registry's models; without `shadows` nothing is compared, without `log` nothing is logged.

        Without `degradation`, calls get the whole model however late it is.
        """
        self._registry = registry
        self._telemetry = telemetry
        self._limits = limits or Limits()
        self._shadows = shadows
        self._log = log
        self._degradation = degradation

    def handlers(self) -> dict[str, Handler]:
        """Each method's handler; handlers raise leaves of `MoerankError`."""
        return {
            "Rank": self.rank,
            "BatchRank": self.batch_rank,
            "GetModel": self.get_model,
            "ListModels": self.list_models,
        }

    def rank(self, body: bytes, call: CallContext) -> bytes:
        """RankRequest -> RankResponse."""
        message = codec_rank.parse(ranking_pb2.RankRequest, body)
        self._limits.require_candidates(codec_rank.count_items(message.items), "items")
        pending = self._ask(message, call)
        (answer,) = self._answer([pending], call)
        written = codec_rank.answer_bytes(answer, debug=message.debug)
        call.clock.lap("output")
        self._telemetry.ranked(pending.model, answer, call.clock.take(), trace=call.clock.trace)
        return written

    def batch_rank(self, body: bytes, call: CallContext) -> bytes:
        """BatchRankRequest -> BatchRankResponse."""
        requests = codec_rank.parse(ranking_pb2.BatchRankRequest, body).requests
        if not 0 < len(requests) <= self._limits.users:
            text = f"the batch has {len(requests)} requests; allowed are 1 to {self._limits.users}"
            raise RequestError(text, field="requests")
        self._limits.require_candidates(sum(codec_rank.count_items(request.items) for request in requests), "requests")
        pending = []
        for position, request in enumerate(requests):
            try:
                pending.append(self._ask(request, call, ahead=position, together=True))
            except RequestError as error:
                where = f"requests[{position}]"
                text = f"{where}: {error}"
                raise RequestError(text, field=f"{where}.{error.field}") from error
        answers: dict[int, RankAnswer] = {}
        for run in runs_of(pending):
            run_answers = dict(zip(run, self._answer([pending[position] for position in run], call), strict=True))
            for position, answer in run_answers.items():
                executions = int(position == run[0])
                self._telemetry.ranked(pending[position].model, answer, call.clock.take(), executions, call.clock.trace)
            answers |= run_answers
        return codec_rank.batch_bytes(
            [answers[i] for i in range(len(pending))], [request.debug for request in requests]
        )

    def get_model(self, body: bytes, call: CallContext) -> bytes:
        """GetModelRequest -> GetModelResponse."""
        call.require_time()
        message = codec_rank.parse(ranking_pb2.GetModelRequest, body)
        model = _describe(self._registry.get(message.model))
        return ranking_pb2.GetModelResponse(model=model).SerializeToString()

    def list_models(self, body: bytes, call: CallContext) -> bytes:
        """ListModelsRequest -> ListModelsResponse."""
        call.require_time()
        codec_rank.parse(ranking_pb2.ListModelsRequest, body)
        models = [_describe(model) for model in self._registry.models()]
        return ranking_pb2.ListModelsResponse(models=models).SerializeToString()

    def _ask(
        self, message: ranking_pb2.RankRequest, call: CallContext, ahead: int = 0, *, together: bool = False
    ) -> PendingRequest:
        if codec_rank.count_items(message.items) == 0:
            text = "the request has no candidates; send at least one id in items"
            raise RequestError(text, field="items")
        if message.version < 0:
            text = f"the version is {message.version}; allowed are positive numbers, and 0 for the current one"
            raise RequestError(text, field="version")
        key = codec_rank.key_of(message.user) or call.request_id
        model, shadow = self._registry.choose(message.model, message.version, key)
        with self._telemetry.watching(model, call.clock):
            request = codec_rank.request_from(message, call.require_time)
            # Each request of a batch explores on its own, and outcomes find it in the log.
            request_id = f"{call.request_id}/{ahead}" if together else call.request_id
            ordering = model.ordering(request.context, request_id, message.score, greedy=message.greedy)
            stage = "" if self._degradation is None else self._degradation.stage(call)
            arm, top_k = self._registry.arm_of(model), message.top_k
            if stage == FALLBACK_STAGE:
                call.require_time()
                fallback = model.fallback(request, top_k, ordering)
                stage = FEWER_STAGE
                if fallback is not None:
                    about = (arm, ordering, request_id, False, FALLBACK_STAGE, fallback)
                    return PendingRequest(model, None, request, None, top_k, False, *about)  # noqa: FBT003
            encoded = model.encode(request, call.require_time, together=together)
            call.clock.lap("input")
        experts = message.debug or self._telemetry.due(model, ahead)
        return PendingRequest(
            model, shadow, request, encoded, top_k, experts, arm, ordering, request_id, message.debug,
            stage if model.graphs.stages.fewer is not None else "",
        )  # fmt: skip

    def _answer(self, run: Sequence[PendingRequest], call: CallContext) -> list[RankAnswer]:
        first = run[0]
        with self._telemetry.watching(first.model, call.clock):
            call.require_time()
            if first.fallback is not None:
                answers = [first.fallback]
            elif first.encoded is not None and len(run) == 1:
                answers = [
                    first.model.answer(
                        first.encoded,
                        first.top_k,
                        call.clock,
                        experts=first.experts,
                        ordering=first.ordering,
                        stage=first.stage,
                        request_id=first.request_id,
                        arm=first.arm,
                    )
                ]
            else:
                wanted = [(each.encoded, each.top_k, each.ordering) for each in run if each.encoded is not None]
                answers = first.model.answer_together(wanted, call.clock)
        if len(run) > 1 or first.fallback is not None or first.debug:
            answers = [
                replace(answer, request_id=each.request_id, arm=each.arm, sources=_sources(each))
                for each, answer in zip(run, answers, strict=True)
            ]
        for each, answer in zip(run, answers, strict=True):
            if each.shadow is not None and self._shadows is not None:
                self._shadows.offer(each.shadow, each.request, answer)
            if self._log is not None:
                self._log.offer(each.model, each.request, each.encoded, answer)
        return answers


def _sources(pending: PendingRequest) -> dict[str, str]:
    return pending.model.sources(pending.encoded) if pending.debug and pending.encoded is not None else {}


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
    return [
        ranking_pb2.Feature(name=f.name, kind=f.kind, side=_SIDES[f.side], type=_type(f), **_range(f))
        for f in schema.features
    ]


def _type(spec: FeatureSpec) -> str:
    if spec.moment:
        return spec.moment
    return "number" if isinstance(spec, DenseSpec) else spec.dtype


def _range(spec: FeatureSpec) -> dict[str, float]:
    """The bounds that are known."""
    bounds = dict(zip(("lowest", "highest"), spec.range, strict=True)) if isinstance(spec, DenseSpec) else {}
    return {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
