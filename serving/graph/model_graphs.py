"""A bundle's graphs, loaded and checked, and which of them scores a request."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from contract.graph_names import FEWER_FILE, GOLDEN_FILE
from contract.inputs import Inputs
from contract.prepared import taken
from contract.score import Score
from features.online.encoded_request import Apart
from features.online.online_table import Arrays, mapped_array
from features.online.request_encoder import EncodedRequest
from serving.graph.answer import ExpertUse
from serving.graph.batched_graph import BatchedEngine
from serving.graph.card_tables import CardTables, TablePlace
from serving.graph.cuda_tolerance import CudaPrecision
from serving.graph.engine import CUDA, Device, Engine
from serving.graph.expert_use import spread_use
from serving.graph.graph_files import graph_files
from serving.graph.prepared_graph import PreparedEngine
from serving.graph.pushed_features import PushedReader
from serving.graph.request_joiner import DELAY_SECONDS, RequestJoiner
from serving.graph.stages import CASCADE_STAGE, FEWER_STAGE, NO_STAGES, Predictions, Stages
from serving.graph.users import UserStore
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
    tables: TablePlace = "auto"
    """On CUDA, where large embedding tables lie."""
    capture: bool = False
    """On CUDA, whether runs are captured and replayed as CUDA graphs."""
    cascade: int | None = None
    """How many candidates the experts see at most; 0: all, None: as the bundle says."""
    fewer_experts: int | None = None
    """Experts that a row is left with under load; see `FewerExpertsEngine`. 0: all."""


class Scored(NamedTuple):
    """Predictions, which experts and which stage made them, and which candidates a cascade refined."""

    predictions: Predictions
    use: ExpertUse | None = None
    stage: str = ""
    refined: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ModelGraphs:
    """The graphs that a bundle holds, each in its engine."""

    engine: Engine
    packed: BatchedEngine | None = None
    """For several requests in one run, where the bundle has that graph."""
    prepared: PreparedEngine | None = None
    """For candidates whose share of the first layers was computed at export, where the bundle has that graph."""
    joined: RequestJoiner | None = None
    """On CUDA, lets requests of several users share a run."""
    stages: Stages = NO_STAGES
    """Cheaper ways to answer."""

    @classmethod
    def open(cls, path: Path, bundle: Bundle, options: EngineOptions, arrays: Arrays = mapped_array) -> Self:
        """Load a verified bundle's graphs: those for a card where they run on one, int8 ones on processors alone.

        Prepared rows outside of graphs come from `arrays`.

        Raises:
            IntegrityError: a graph does not load.
            SchemaMismatchError: graph and schema do not belong together.
            ConfigError: a required GPU is not used.
        """
        device: Device = "cuda" if options.require_gpu else options.device
        how: dict[str, Any] = {"threads": options.threads, "device": device, "precision": options.precision}
        names, schema = bundle.manifest.files, bundle.schema
        files, own = (graph_files(names, options.precision, cuda=cuda) for cuda in (device != "cpu", False))
        # What routes rows on the host, as graphs for processors do, cannot be captured.
        card: dict[str, Any] = {"capture": options.capture and files.for_card, "tables": CardTables(options.tables)}
        engine = Engine(path, schema, **how, file=files.model, **card)
        if files != own and CUDA not in engine.providers:
            # ``auto``, on a machine without a card.
            files, how["device"], card = own, "cpu", {}
            engine = Engine(path, schema, **how, file=files.model)
        packed = joined = None
        if files.packed is not None:
            packed = BatchedEngine(path, schema, **how, file=files.packed, **card)
            engine.several = packed.engine
            joined = RequestJoiner(packed, options.queue_seconds) if CUDA in engine.providers else None
        prepared = None
        if files.prepared is not None:
            prepared = PreparedEngine(path, schema, **how, file=files.prepared, arrays=arrays)
        limits: dict[str, Any] = {"most": options.cascade, "experts": options.fewer_experts}
        stages = Stages.open(path, schema, tuple(names), how, **limits, fewer_file=files.fewer or FEWER_FILE)
        return cls(engine, packed, prepared, joined, stages)

    def check(self, path: Path, bundle: Bundle) -> None:
        """Compare the answers to the bundle's golden requests, which warms the graphs up as well.

        Raises:
            PredictionError: a golden request is answered otherwise than at export.
        """
        if GOLDEN_FILE not in bundle.manifest.files:
            return
        for name, case in golden.read(path / GOLDEN_FILE).items():
            self.engine.check(name, case)
            if self.packed is not None:
                self.packed.check(name, case)
            if self.prepared is not None:
                self.prepared.check(name, case)
            self.stages.check(case.inputs)

    def predict(
        self, encoded: EncodedRequest, whole: Callable[[], Inputs], score: Score, *, experts: bool, stage: str
    ) -> Scored:
        """Score a request by the cheapest graph that may answer it.

        `whole` makes the inputs of the general graph, `score` chooses whom a cascade refines, and the `stage`
        ``fewer experts`` takes fewer of them, where the bundle has the graph.

        Raises:
            PredictionError: the graph failed.
        """
        cascades = self.stages.cascades(len(encoded.unknown_items))
        if cascades or (stage == FEWER_STAGE and self.stages.fewer is not None):
            return self._staged(whole(), score, stage, experts=experts, cascades=cascades)
        if self.prepared is not None and encoded.rows_of:
            if encoded.apart is not None:
                return self._spliced(self.prepared, encoded, encoded.apart, experts=experts)
            if experts:
                return Scored(*self.prepared.predict_with_experts(encoded))
            return Scored(self.prepared.predict(encoded))
        if experts:
            return Scored(*self.engine.predict_with_experts(encoded.inputs))
        return Scored((self.engine if self.joined is None else self.joined).predict(encoded.inputs))

    def _spliced(self, prepared: PreparedEngine, encoded: EncodedRequest, apart: Apart, *, experts: bool) -> Scored:
        """Most candidates by their prepared rows, those that stand apart by the general graph."""
        if experts:
            return Scored(*self.engine.predict_with_experts(apart.inputs))
        predictions = {task: values.copy() for task, values in prepared.predict(encoded).items()}
        few = Inputs(apart.inputs.request, taken(apart.inputs.candidate, apart.rows))
        for task, values in self.engine.predict(few).items():
            predictions[task][apart.rows] = values
        return Scored(predictions)

    def _staged(self, inputs: Inputs, score: Score, stage: str, *, experts: bool, cascades: bool) -> Scored:
        """By fewer experts, or by the experts for the best candidates alone, or by both."""
        engine = self.stages.fewer if stage == FEWER_STAGE and self.stages.fewer is not None else self.engine
        use: list[ExpertUse] = []

        def predict(candidates: Inputs) -> Predictions:
            if not experts:
                return engine.predict(candidates)
            predictions, used = engine.predict_with_experts(candidates)
            use.append(used)
            return predictions

        name = FEWER_STAGE if engine is self.stages.fewer else CASCADE_STAGE
        if not cascades:
            return Scored(predict(inputs), use[0] if use else None, name)
        refined = self.stages.refine(inputs, score, predict)
        spread = spread_use(use[0], refined.rows, inputs.candidate.rows) if use else None
        return Scored(refined.predictions, spread, name, refined.rows)
