"""A loaded model: a verified bundle with its engine, encoder and score, answering ranking requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import RAW_GOLDEN_FILE
from contract.hashing import hash_text
from contract.inputs import Inputs
from contract.ranking_policy import BoundPolicy, RankingPolicy
from contract.score import Score, ScoreConfig
from features.online.given_values import context_names
from features.online.prepared_items import PreparedEncoder
from features.online.request_encoder import EncodedRequest, RankRequest, RequestEncoder, no_check
from features.online.value_sources import value_sources
from serving.graph.answer import RankAnswer
from serving.graph.context import Clock
from serving.graph.engine import Engine
from serving.graph.golden_requests import check_encoder, check_prepared
from serving.graph.graph_files import same_graphs
from serving.graph.held_arrays import HeldArrays
from serving.graph.input_checks import InputCheck
from serving.graph.model_graphs import EngineOptions, ModelGraphs, Scored
from serving.graph.ordering import Ordering, ranking
from serving.graph.pushed_features import PushedReader
from serving.graph.stages import FALLBACK_STAGE
from serving.store import bundle as bundles
from serving.store.bundle import Bundle


@dataclass(frozen=True)
class RankingModel:
    """Immutable, so that a new version or score replaces the old one by one reference."""

    bundle: Bundle
    graphs: ModelGraphs
    encoder: RequestEncoder
    policy: BoundPolicy
    pushed: PushedReader | None = None
    """What was pushed since the version was made."""
    held: HeldArrays | None = None
    """What the next version may take over."""

    @classmethod
    def open(
        cls,
        path: Path,
        options: EngineOptions | None = None,
        score: ScoreConfig | RankingPolicy | None = None,
        before: Self | None = None,
    ) -> Self:
        """Verify a bundle, load it, and compare its answers to its golden requests, which warms it up as well.

        `score` overrides the bundle's own formula or policy; without either it is `default_score`. What has the same
        sha256 in the version `before`, which goes on answering, is taken over from it in memory: arrays of tables one
        by one, vocabularies, and the graphs where none of them changed.

        Raises:
            IntegrityError: the bundle is not what its manifest promises, or does not load.
            SchemaMismatchError: graph and schema do not belong together.
            PredictionError: a golden request is answered otherwise than at export.
            ConfigError: the score does not fit the tasks, or a required GPU is not used.
        """
        options = options or EngineOptions()
        held_before = None if before is None else before.held
        bundle = bundles.load(path, () if held_before is None else held_before.arrays)
        held = HeldArrays(bundle, held_before)
        if before is not None and same_graphs(before.bundle, bundle):
            graphs = before.graphs
        else:
            graphs = ModelGraphs.open(path, bundle, options, held)
        graphs.check(path, bundle)
        plain = RequestEncoder.open(path, None, held, None if before is None else before.encoder)
        if RAW_GOLDEN_FILE in bundle.manifest.files:
            check_encoder(path, plain)
            check_prepared(path, graphs.prepared, plain)
        users = None if options.users is None else options.users.over(bundle.schema.fingerprint())
        encoder = RequestEncoder.open(path, users, held, plain) if users else plain
        held.settle()
        if users is not None and graphs.prepared is not None and graphs.prepared.holds_users:
            graphs = replace(graphs, prepared=None)
        policy = _policy(bundle, score)
        return cls(bundle, graphs, encoder, policy, options.pushed, held)

    @property
    def engine(self) -> Engine:
        """The general graph, which answers any request."""
        return self.graphs.engine

    @property
    def score(self) -> Score:
        """The formula of requests that name no other."""
        return self.policy.default

    def ordering(
        self, context: Mapping[str, Any], request_id: str, requested: str = "", *, greedy: bool = False
    ) -> Ordering:
        """How a request is ordered; the same for one id on every replica.

        Raises:
            RequestError: it asks for a formula that there is not.
        """
        name = self.policy.name_for(context, requested)
        explores = self.policy.explore is not None and not greedy
        return Ordering(name, hash_text(f"{self.name}\0explore\0{request_id}") if explores else None)

    def with_score(self, config: ScoreConfig | RankingPolicy | None) -> Self:
        """The same model with another formula or policy; None for the bundle's own.

        Raises:
            ConfigError: the score does not fit the tasks, or the context.
        """
        return replace(self, policy=_policy(self.bundle, config))

    @cached_property
    def _prepared_encoder(self) -> PreparedEncoder | None:
        prepared = self.graphs.prepared
        return None if prepared is None else prepared.encoder(self.encoder)

    def encode(
        self, request: RankRequest, check: Callable[[], None] = no_check, *, together: bool = False
    ) -> EncodedRequest:
        """Encode a request with what is known now; `check` is called under way, and may raise.

        It is encoded for the graph that answers it, which is that of several requests if it may be run `together`.

        Raises:
            RequestError: the request cannot be encoded, naming the field.
        """
        graphs = self.graphs
        general = (together and graphs.packed is not None) or graphs.stages.cascades(len(request.items))
        lean = None if general else self._prepared_encoder
        return (self.encoder if lean is None else lean).encode(request, check, self.pushed)

    def whole_inputs(self, encoded: EncodedRequest) -> Inputs:
        """The inputs of the general graph for a request that was encoded for either."""
        lean = self._prepared_encoder
        return encoded.inputs if lean is None else lean.whole(encoded)

    @cached_property
    def check(self) -> InputCheck:
        """The checks of inputs that callers have encoded themselves."""
        return InputCheck(self.bundle.schema, self.engine.inputs)

    @property
    def name(self) -> str:
        """The model's name in the store."""
        return self.bundle.manifest.model

    @property
    def version(self) -> int:
        """The bundle's version."""
        return self.bundle.manifest.version

    def rank(
        self, request: RankRequest, top_k: int = 0, clock: Clock | None = None, *, experts: bool = False
    ) -> RankAnswer:
        """Predict and order; equal scores keep the order of the request. The clock laps the phases.

        `experts` has the answer say which experts it took.

        Raises:
            RequestError: the request cannot be encoded, naming the field.
            PredictionError: the graph failed.
        """
        clock = clock or Clock()
        encoded = self.encode(request)
        clock.lap("input")
        return self.answer(encoded, top_k, clock, experts=experts)

    def answer(
        self,
        encoded: EncodedRequest,
        top_k: int,
        clock: Clock,
        *,
        experts: bool = False,
        ordering: Ordering | None = None,
        stage: str = "",
        request_id: str = "",
        arm: str = "",
    ) -> RankAnswer:
        """As `rank`, for a request that has been encoded; without an `ordering`, by the default score.

        With the `stage` ``fewer experts`` it takes these, where the bundle has the graph. The answer says the request's
        id and by which arm the model was chosen.

        Raises:
            PredictionError: the graph failed.
        """
        score = self.policy.scores[self.policy.config.default if ordering is None else ordering.score_name]
        whole = partial(self.whole_inputs, encoded)
        scored = self.graphs.predict(encoded, whole, score, experts=experts, stage=stage)
        clock.lap("infer")
        return self._ordered(encoded, scored, top_k, ordering, request_id, arm)

    def fallback(self, request: RankRequest, top_k: int, ordering: Ordering | None = None) -> RankAnswer | None:
        """A ranking by the items' priors, without the model; None where the bundle holds none.

        Raises:
            RequestError: ids of the wrong type.
        """
        if self.graphs.stages.prior is None:
            return None
        predictions, unknown = self.graphs.stages.prior.predict(self.encoder.item_hashes(request.items))
        return RankAnswer(
            model=self.name,
            version=self.version,
            **ranking(self.policy, predictions, top_k, ordering),
            stage=FALLBACK_STAGE,
            unknown_user=False,
            unknown_items=_places(unknown),
        )

    def answer_together(
        self, requests: Sequence[tuple[EncodedRequest, int, Ordering | None]], clock: Clock
    ) -> list[RankAnswer]:
        """Answer requests, each with its top_k and ordering: several in one run where the bundle has the graph for it.

        Raises:
            PredictionError: the graph failed.
        """
        packed = self.graphs.packed
        if packed is None or len(requests) == 1:
            return [self.answer(encoded, top_k, clock, ordering=how) for encoded, top_k, how in requests]
        predictions = packed.predict([encoded.inputs for encoded, *_ in requests])
        clock.lap("infer")
        return [
            self._ordered(encoded, Scored(scores), top_k, how)
            for (encoded, top_k, how), scores in zip(requests, predictions, strict=True)
        ]

    def sources(self, encoded: EncodedRequest) -> dict[str, str]:
        """Where each feature's values came from; see `value_sources`."""
        return value_sources(self.bundle.schema, encoded, self.whole_inputs(encoded))

    def _ordered(
        self,
        encoded: EncodedRequest,
        scored: Scored,
        top_k: int,
        ordering: Ordering | None = None,
        request_id: str = "",
        arm: str = "",
    ) -> RankAnswer:
        return RankAnswer(
            model=self.name,
            request_id=request_id,
            arm=arm,
            version=self.version,
            **ranking(self.policy, scored.predictions, top_k, ordering, scored.refined),
            stage=scored.stage,
            refined=0 if scored.refined is None else len(scored.refined),
            unknown_user=encoded.unknown_user,
            unknown_items=_NONE if not encoded.unknown_items.any() else _places(encoded.unknown_items),
            experts=scored.use,
            missing_context=encoded.missing_context,
            unseen_context=encoded.unseen_context,
            clipped=encoded.clipped,
        )


def _policy(bundle: Bundle, config: ScoreConfig | RankingPolicy | None) -> BoundPolicy:
    """An operator's policy, whose every word has to mean something, or the bundle's own as it is."""
    if config is None:
        return BoundPolicy(bundle.manifest.score, bundle.schema.tasks)
    return BoundPolicy(config, bundle.schema.tasks, context_names(bundle.schema))


_NONE = np.zeros(0, np.uint32)


def _places(unknown: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return np.flatnonzero(unknown).astype(np.uint32)
