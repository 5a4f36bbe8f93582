"""The Open Inference Protocol v2: encoded tensors in, predictions out, and what stock clients ask besides."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from contract.errors import ModelNotFoundError, NotAllowedError, RequestError
from serving.api import codec_rank
from serving.api.codec_oip import arrays_from, response_of
from serving.api.codec_raw_ids import ITEMS, count_raw_items, has_raw_ids, raw_request_from
from serving.api.rank_service import Limits
from serving.graph.answer import RankAnswer
from serving.graph.context import CallContext, Handler
from serving.graph.served_model import RankingModel
from serving.observe.request_log import RequestLog
from serving.observe.telemetry import ModelWork, Telemetry
from serving.registry.registry import Registry
from serving.stubs.inference import grpc_service_pb2 as pb

LOG = logging.getLogger("moerank.registry")
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("model_configuration", "statistics", "model_repository")


class InferenceService:
    """Answers the methods of ``inference.GRPCInferenceService``."""

    name = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

    def __init__(
        self,
        registry: Registry,
        telemetry: Telemetry,
        limits: Limits,
        log: RequestLog | None = None,
        *,
        control: bool = False,
    ) -> None:
        """Serve a registry's models; `control` lets callers load and unload them, `log` takes rankings by ids."""
        self._registry = registry
        self._telemetry = telemetry
        self._limits = limits
        self._log = log
        self._control = control

    def handlers(self) -> dict[str, Handler]:
        """Each method's handler; handlers raise leaves of `MoerankError`."""
        return {
            "ServerLive": lambda _body, _call: pb.ServerLiveResponse(live=True).SerializeToString(),
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }

    def model_infer(self, body: bytes, call: CallContext) -> bytes:
        """ModelInferRequest -> ModelInferResponse."""
        request = codec_rank.parse(pb.ModelInferRequest, body)
        model = self._model(request.model_name, request.model_version)
        with self._telemetry.watching(model, call.clock):
            wanted = _wanted(model, request)
            about = {"request_id": call.request_id, "arm": self._registry.arm_of(model)}
            if has_raw_ids(request):
                answer = self._of_ids(model, request, call, about["arm"])
                rows, predictions = len(answer.scores), answer.predictions
                about |= {"stage": answer.stage} if answer.stage else {}
            else:
                rows, predictions = self._of_tensors(model, request, call)
            written = response_of(model.name, model.version, request, predictions, wanted, about)
            call.clock.lap("output")
        self._telemetry.succeeded(model, rows, call.clock.take(), trace=call.clock.trace)
        return written

    def _of_tensors(
        self, model: RankingModel, request: pb.ModelInferRequest, call: CallContext
    ) -> tuple[int, Mapping[str, NDArray[np.float32]]]:
        """Rows, and predictions by task, of features that the caller has encoded."""
        arrays = arrays_from(request)
        rows = model.check.require_valid(arrays)
        self._limits.require_candidates(rows, "candidate_ids")
        call.require_time()
        call.clock.lap("input")
        predictions = model.engine.run(arrays, rows)
        call.clock.lap("infer")
        return rows, predictions

    def _of_ids(self, model: RankingModel, request: pb.ModelInferRequest, call: CallContext, arm: str) -> RankAnswer:
        """The answer for raw ids, whose features are looked up; in the log no candidate has a place."""
        self._limits.require_candidates(count_raw_items(request), ITEMS)
        raw = raw_request_from(request)
        encoded = model.encode(raw, call.require_time)
        call.clock.lap("input")
        answer = model.answer(encoded, 0, call.clock, request_id=call.request_id, arm=arm)
        if self._log is not None:
            # The caller gets predictions, and orders by them as they like.
            self._log.offer(model, raw, encoded, replace(answer, order=answer.order[:0]))
        return answer

    def server_ready(self, _body: bytes, _call: CallContext) -> bytes:
        """ServerReadyRequest -> ServerReadyResponse; ready while there is a model."""
        return pb.ServerReadyResponse(ready=bool(self._registry.models())).SerializeToString()

    def model_ready(self, body: bytes, _: CallContext) -> bytes:
        """ModelReadyRequest -> ModelReadyResponse; as Triton does, an unknown model is not ready; that is no error."""
        request = codec_rank.parse(pb.ModelReadyRequest, body)
        try:
            self._model(request.name, request.version)
        except ModelNotFoundError:
            return pb.ModelReadyResponse(ready=False).SerializeToString()
        return pb.ModelReadyResponse(ready=True).SerializeToString()

    def server_metadata(self, _body: bytes, _call: CallContext) -> bytes:
        """ServerMetadataRequest -> ServerMetadataResponse."""
        version = metadata.version("moerank")
        return pb.ServerMetadataResponse(name="moerank", version=version, extensions=EXTENSIONS).SerializeToString()

    def model_metadata(self, body: bytes, _: CallContext) -> bytes:
        """ModelMetadataRequest -> ModelMetadataResponse."""
        request = codec_rank.parse(pb.ModelMetadataRequest, body)
        model = self._model(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=[str(model.version)],
            platform=PLATFORM,
            inputs=[tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in model.engine.signature()],
            outputs=[tensor(name=task, datatype="FP32", shape=[-1]) for task in model.engine.tasks],
        ).SerializeToString()

    def model_config(self, body: bytes, _: CallContext) -> bytes:
        """ModelConfigRequest -> ModelConfigResponse."""
        request = codec_rank.parse(pb.ModelConfigRequest, body)
        model = self._model(request.name, request.version)
        kinds = {"INT64": pb.TYPE_INT64, "FP32": pb.TYPE_FP32}
        config = pb.ModelConfig(
            name=model.name,
            platform=PLATFORM,
            backend="onnxruntime",
            input=[
                pb.ModelInput(name=n, data_type=kinds[kind], dims=shape) for n, kind, shape in model.engine.signature()
            ],
            output=[pb.ModelOutput(name=task, data_type=pb.TYPE_FP32, dims=[-1]) for task in model.engine.tasks],
        )
        return pb.ModelConfigResponse(config=config).SerializeToString()

    def model_statistics(self, body: bytes, _: CallContext) -> bytes:
        """ModelStatisticsRequest -> ModelStatisticsResponse."""
        request = codec_rank.parse(pb.ModelStatisticsRequest, body)
        if request.name:
            self._registry.get(request.name)
        version = _version(request.version)
        stats = [
            _statistics(work)
            for work in self._telemetry.work()
            if request.name in {"", work.model} and version in {0, work.version}
        ]
        return pb.ModelStatisticsResponse(model_stats=stats).SerializeToString()

    def repository_index(self, body: bytes, _: CallContext) -> bytes:
        """RepositoryIndexRequest -> RepositoryIndexResponse."""
        request = codec_rank.parse(pb.RepositoryIndexRequest, body)
        index = pb.RepositoryIndexResponse.ModelIndex
        models = [
            index(
                name=name,
                version=str(version),
                state="READY" if served else "UNAVAILABLE",
                reason="" if served else "not the served version",
            )
            for name, version, served in self._registry.index()
            if served or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=models).SerializeToString()

    def load(self, body: bytes, call: CallContext) -> bytes:
        """RepositoryModelLoadRequest -> RepositoryModelLoadResponse."""
        request = codec_rank.parse(pb.RepositoryModelLoadRequest, body)
        self._require_control()
        if request.parameters:
            message = "loading takes no parameters here: models come from the store alone"
            raise RequestError(message, field="parameters")
        LOG.info("request %s asks to load %s", call.request_id, request.model_name)
        self._registry.load(request.model_name)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    def unload(self, body: bytes, call: CallContext) -> bytes:
        """RepositoryModelUnloadRequest -> RepositoryModelUnloadResponse."""
        request = codec_rank.parse(pb.RepositoryModelUnloadRequest, body)
        self._require_control()
        LOG.info("request %s asks to unload %s", call.request_id, request.model_name)
        self._registry.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    def _model(self, name: str, version: str) -> RankingModel:
        return self._registry.get(name, _version(version))

    def _require_control(self) -> None:
        if not self._control:
            message = "this server does not let callers load and unload models; it follows its store (--model-control)"
            raise NotAllowedError(message)


def _version(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        message = f"the version {text[:40]!r} is not a number; leave it empty for the current one"
        raise RequestError(message, field="model_version")
    return int(text)


def _wanted(model: RankingModel, request: pb.ModelInferRequest) -> tuple[str, ...]:
    wanted = tuple(output.name for output in request.outputs) or model.engine.tasks
    for name in wanted:
        if name not in model.engine.tasks:
            message = f"the output {name[:80]!r} is unknown; this model answers {', '.join(model.engine.tasks)}"
            raise RequestError(message, field=name)
    if len(set(wanted)) < len(wanted):
        message = f"an output is asked for twice; this model answers {', '.join(model.engine.tasks)}, each once"
        raise RequestError(message, field="outputs")
    return wanted


def _statistics(work: ModelWork) -> pb.ModelStatistics:
    def duration(count: int, nanoseconds: int) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=count, ns=nanoseconds)

    successes, phases = work.successes, work.phase_ns
    return pb.ModelStatistics(
        name=work.model,
        version=str(work.version),
        last_inference=work.last_ms,
        inference_count=work.rows,
        execution_count=work.executions,
        inference_stats=pb.InferStatistics(
            success=duration(successes, work.success_ns),
            fail=duration(work.failures.total(), work.failure_ns),
            queue=duration(successes, phases["queue"]),
            compute_input=duration(successes, phases["input"]),
            compute_infer=duration(successes, phases["infer"]),
            compute_output=duration(successes, phases["output"]),
        ),
    )
