"""A loaded model: a verified bundle with its engine, encoder and score, answering ranking requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import GOLDEN_FILE, RAW_GOLDEN_FILE
from contract.hashing import hash_text
from contract.inputs import Inputs
from contract.ranking_policy import BoundPolicy, RankingPolicy
from contract.score import Score, ScoreConfig
from features.online.prepared_items import PreparedEncoder
from features.online.request_encoder import EncodedRequest, RankRequest, RequestEncoder, no_check
from features.online.value_sources import value_sources
from serving.graph.answer import ExpertUse, RankAnswer
from serving.graph.batched_graph import BatchedEngine
from serving.graph.context import Clock
from serving.graph.cuda_tolerance import CudaPrecision
from serving.graph.engine import CUDA, Device, Engine
from serving.graph.expert_use import spread_use
from serving.graph.golden_requests import check_encoder, check_prepared
from serving.graph.graph_files import graph_files
from serving.graph.input_checks import InputCheck
from serving.graph.ordering import Ordering, ranking
from serving.graph.prepared_graph import PreparedEngine
from serving.graph.pushed_features import PushedReader
from serving.graph.request_joiner import DELAY_SECONDS, RequestJoiner
from serving.graph.stages import CASCADE_STAGE, FALLBACK_STAGE, FEWER_STAGE, NO_STAGES, Predictions, Stages
from serving.graph.users import UserStore
from serving.store import bundle as bundles
from serving.store import golden
from serving.store.bundle import Bundle


@dataclass(frozen=True)
class EngineOptions:
    """How graphs are run (see `Engine`), and a store in which users are looked up before the bundle."""

    threads: int = 1
    device: Device = "cpu"
    require_gpu: bool = False
    precision: CudaPrecision = "fp32"
    users: UserStore | None = None
    pushed: PushedReader | None = None
    """Where features that were pushed since the version was made are looked up."""
    queue_seconds: float = DELAY_SECONDS
    """On CUDA, how long a request may wait for others to share its run."""
    capture: bool = False
    """On CUDA, whether runs are captured and replayed as CUDA graphs."""
    cascade: int | None = None
    """How many candidates the experts see at most; 0: all, None: as the bundle says."""
    fewer_experts: int | None = None
    """Experts that a row is left with under load; see `FewerExpertsEngine`. 0: all."""


class _Found(NamedTuple):
    """Predictions, who made them, and which candidates a cascade refined."""

    predictions: Predictions
    use: ExpertUse | None = None
    stage: str = ""
    refined: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class RankingModel:
    """Immutable, so that a new version or score replaces the old one by one reference."""

    bundle: Bundle
    engine: Engine
    encoder: RequestEncoder
    policy: BoundPolicy
    packed: BatchedEngine | None = None
    """For several requests in one run, where the bundle has that graph."""
    pushed: PushedReader | None = None
    """What was pushed since the version was made."""
    prepared: PreparedEngine | None = None
    """For candidates whose share of the first layers was computed at export, where the bundle has that graph."""
    joined: RequestJoiner | None = None
    """On CUDA, what has requests of several users share a run."""
    stages: Stages = NO_STAGES
    """Cheaper ways to answer."""

    @classmethod
    def open(
        cls, path: Path, options: EngineOptions | None = None, score: ScoreConfig | RankingPolicy | None = None
    ) -> Self:
        """Verify a bundle, load it, and compare its answers to its golden requests, which warms it up as well.

        `score` overrides the bundle's own formula or policy; without either it is `default_score`.

        Raises:
            IntegrityError: the bundle is not what its manifest promises, or does not load.
            SchemaMismatchError: graph and schema do not belong together.
            PredictionError: a golden request is answered otherwise than at export.
            ConfigError: the score does not fit the tasks, or a required GPU is not used.
        """
        options = options or EngineOptions()
        bundle = bundles.load(path)
        device: Device = "cuda" if options.require_gpu else options.device
        engine, packed, prepared, stages = _engines(path, bundle, options, device)
        if GOLDEN_FILE in bundle.manifest.files:
            for name, case in golden.read(path / GOLDEN_FILE).items():
                engine.check(name, case)
                if packed is not None:
                    packed.check(name, case)
                if prepared is not None:
                    prepared.check(name, case)
                stages.check(case.inputs)
        plain = RequestEncoder.open(path)
        if RAW_GOLDEN_FILE in bundle.manifest.files:
            check_encoder(path, plain)
            check_prepared(path, prepared, plain)
        users = None if options.users is None else options.users.over(bundle.schema.fingerprint())
        encoder = RequestEncoder.open(path, users) if users else plain
        joined = None
        if packed is not None and CUDA in engine.providers:
            joined = RequestJoiner(packed, options.queue_seconds)
        if users is not None and prepared is not None and prepared.holds_users:
            prepared = None
        policy = BoundPolicy(score or bundle.manifest.score, bundle.schema.tasks)
        return cls(bundle, engine, encoder, policy, packed, options.pushed, prepared, joined, stages)

    @property
    def score(self) -> Score:
        """The formula of requests that nothing else is said of."""
        return self.policy.default

    def ordering(
        self, context: Mapping[str, Any], request_id: str, asked: str = "", *, greedy: bool = False
    ) -> Ordering:
        """How a request is ordered; the same for one id on every replica.

        Raises:
            RequestError: it asks for a formula that there is not.
        """
        name = self.policy.name_for(context, asked)
        explores = self.policy.explore is not None and not greedy
        return Ordering(name, hash_text(f"{self.name}\0explore\0{request_id}") if explores else None)

    def with_score(self, config: ScoreConfig | RankingPolicy | None) -> Self:
        """The same model with another formula or policy; None for the bundle's own.

        Raises:
            ConfigError: the score does not fit the tasks.
        """
        return replace(self, policy=BoundPolicy(config or self.bundle.manifest.score, self.bundle.schema.tasks))

    @cached_property
    def _prepared_encoder(self) -> PreparedEncoder | None:
        return None if self.prepared is None else self.prepared.encoder(self.encoder)

    def encode(
        self, request: RankRequest, check: Callable[[], None] = no_check, *, together: bool = False
    ) -> EncodedRequest:
        """Encode a request with what is known now; `check` is called under way, and may raise.

        It is encoded for the graph that answers it, which is that of several requests if it may be run `together`.

        Raises:
            RequestError: the request cannot be encoded, naming the field.
        """
        whole = (together and self.packed is not None) or self.stages.cascades(len(request.items))
        lean = None if whole else self._prepared_encoder
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
    ) -> RankAnswer:
        """As `rank`, for a request that has been encoded; without an `ordering`, by the default score.

        With the `stage` ``fewer experts`` it takes these, where the bundle has the graph.

        Raises:
            PredictionError: the graph failed.
        """
        found = self._found(encoded, experts=experts, ordering=ordering, stage=stage)
        clock.lap("infer")
        return self._ordered(encoded, found, top_k, ordering)

    def _found(self, encoded: EncodedRequest, *, experts: bool, ordering: Ordering | None, stage: str) -> "_Found":
        cascades = self.stages.cascades(len(encoded.unknown_items))
        if cascades or (stage == FEWER_STAGE and self.stages.fewer is not None):
            return self._staged(self.whole_inputs(encoded), ordering, stage, experts=experts, cascades=cascades)
        if self.prepared is not None and encoded.rows_of:
            if experts:
                return _Found(*self.prepared.predict_with_experts(encoded))
            return _Found(self.prepared.predict(encoded))
        if experts:
            return _Found(*self.engine.predict_with_experts(encoded.inputs))
        return _Found((self.engine if self.joined is None else self.joined).predict(encoded.inputs))

    def _staged(
        self, inputs: Inputs, ordering: Ordering | None, stage: str, *, experts: bool, cascades: bool
    ) -> "_Found":
        """By fewer experts, or the experts for the best candidates alone, or both."""
        engine = self.stages.fewer if stage == FEWER_STAGE and self.stages.fewer is not None else self.engine
        use: list[ExpertUse] = []

        def predict(given: Inputs) -> Predictions:
            if not experts:
                return engine.predict(given)
            predictions, used = engine.predict_with_experts(given)
            use.append(used)
            return predictions

        name = FEWER_STAGE if engine is self.stages.fewer else CASCADE_STAGE
        if not cascades:
            return _Found(predict(inputs), use[0] if use else None, name)
        score = self.policy.scores[self.policy.config.default if ordering is None else ordering.score_name]
        found = self.stages.refine(inputs, score, predict)
        spread = spread_use(use[0], found.rows, inputs.candidate.rows) if use else None
        return _Found(found.predictions, spread, name, found.rows)

    def fallback(self, request: RankRequest, top_k: int, ordering: Ordering | None = None) -> RankAnswer | None:
        """A ranking by the items' priors, without the model; None where the bundle holds none.

        Raises:
            RequestError: ids of the wrong type.
        """
        if self.stages.prior is None:
            return None
        predictions, unknown = self.stages.prior.predict(self.encoder.item_hashes(request.items))
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
        if self.packed is None or len(requests) == 1:
            return [self.answer(encoded, top_k, clock, ordering=how) for encoded, top_k, how in requests]
        predictions = self.packed.predict([encoded.inputs for encoded, *_ in requests])
        clock.lap("infer")
        return [
            self._ordered(encoded, _Found(found), top_k, how)
            for (encoded, top_k, how), found in zip(requests, predictions, strict=True)
        ]

    def sources(self, encoded: EncodedRequest) -> dict[str, str]:
        """Where each feature's values came from; see `value_sources`."""
        return value_sources(self.bundle.schema, encoded, self.whole_inputs(encoded))

    def _ordered(
        self,
        encoded: EncodedRequest,
        found: _Found,
        top_k: int,
        ordering: Ordering | None = None,
    ) -> RankAnswer:
        return RankAnswer(
            model=self.name,
            version=self.version,
            **ranking(self.policy, found.predictions, top_k, ordering, found.refined),
            stage=found.stage,
            refined=0 if found.refined is None else len(found.refined),
            unknown_user=encoded.unknown_user,
            unknown_items=_NONE if not encoded.unknown_items.any() else _places(encoded.unknown_items),
            experts=found.use,
            missing_context=encoded.missing_context,
            unseen_context=encoded.unseen_context,
            clipped=encoded.clipped,
        )


_NONE = np.zeros(0, np.uint32)


def _places(unknown: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return np.flatnonzero(unknown).astype(np.uint32)


def _engines(
    path: Path, bundle: Bundle, options: EngineOptions, device: Device
) -> tuple[Engine, BatchedEngine | None, PreparedEngine | None, Stages]:
    """The bundle's graphs: those for a card where they run on one."""
    how: dict[str, Any] = {"threads": options.threads, "device": device, "precision": options.precision}
    names, schema = bundle.manifest.files, bundle.schema
    files = graph_files(names, options.precision, cuda=device != "cpu")
    engine = Engine(path, schema, **how, file=files.model, capture=options.capture)
    if files.for_card and CUDA not in engine.providers:
        # ``auto``, on a machine without a card.
        files, how["device"] = graph_files(names, options.precision, cuda=False), "cpu"
        engine = Engine(path, schema, **how, file=files.model)
    packed = prepared = None
    if files.packed is not None:
        packed = BatchedEngine(path, schema, **how, file=files.packed, capture=options.capture)
        engine.several = packed.engine
    if files.prepared is not None:
        prepared = PreparedEngine(path, schema, **how)
    stages = Stages.open(path, schema, tuple(names), how, most=options.cascade, experts=options.fewer_experts)
    return engine, packed, prepared, stages
