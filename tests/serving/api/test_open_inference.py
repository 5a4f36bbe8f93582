"""The Open Inference Protocol: what stock clients ask, and encoded tensors that must not be believed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.graph.engine import Engine
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.stubs.inference import grpc_service_pb2 as pb
from serving.stubs.inference import grpc_service_pb2_grpc
from tests.tiny_bundle import make_inputs, publish_tiny

Build = Callable[..., pb.ModelInferRequest]


@pytest.fixture
def stub(server: RunningServer) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]


def arrays() -> dict[str, Any]:
    """What the tiny graph takes, for three candidates."""
    every = make_inputs(1, [1, 2, 3]).arrays()
    return {name: every[name] for name in ("request_ids", "request_dense", "candidate_ids", "candidate_dense")}


def infer_request(tensors: dict[str, Any], *, raw: bool = True, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny", id="7", **fields)
    for name, array in tensors.items():
        whole = array.dtype.kind == "i"
        tensor = request.inputs.add(name=name, datatype="INT64" if whole else "FP32", shape=array.shape)
        if raw:
            request.raw_input_contents.append(array.tobytes())
        elif whole:
            tensor.contents.int64_contents.extend(array.ravel().tolist())
        else:
            tensor.contents.fp32_contents.extend(array.ravel().tolist())
    return request


def test_raw_tensors_are_answered_as_in_process(stub: Any, store: Path) -> None:
    answer = stub.ModelInfer(infer_request(arrays()))
    expected = Engine(store / "tiny" / "1").predict(make_inputs(1, [1, 2, 3]))
    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "7")
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert (output.datatype, list(output.shape)) == ("FP32", [3])
        np.testing.assert_array_equal(np.frombuffer(content, "<f4"), expected[output.name])


def test_typed_tensors_get_typed_answers(stub: Any) -> None:
    raw = stub.ModelInfer(infer_request(arrays()))
    typed = stub.ModelInfer(infer_request(arrays(), raw=False))
    assert not typed.raw_output_contents
    for one, other in zip(typed.outputs, raw.raw_output_contents, strict=True):
        assert list(one.contents.fp32_contents) == np.frombuffer(other, "<f4").tolist()


@pytest.mark.parametrize("raw", [True, False])
def test_an_answer_names_the_request_the_version_and_the_arm(stub: Any, *, raw: bool) -> None:
    answer = stub.ModelInfer(infer_request(arrays(), raw=raw), metadata=[("x-request-id", "mine")])
    told = {name: parameter.string_param for name, parameter in answer.parameters.items()}
    assert (told, answer.model_version) == ({"request_id": "mine", "arm": "current"}, "1")


def test_only_the_wanted_outputs_come_back(stub: Any) -> None:
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="rating")
    answer = stub.ModelInfer(infer_request(arrays(), outputs=[wanted]))
    assert [output.name for output in answer.outputs] == ["rating"]


def replaced(name: str, array: Any) -> dict[str, Any]:
    return {**arrays(), name: array}


BAD_TENSORS: list[tuple[dict[str, Any], str]] = [
    (replaced("candidate_ids", np.array([[1], [21], [0]])), "candidate_ids"),
    (replaced("candidate_ids", np.array([[1], [-1], [0]])), "candidate_ids"),
    (replaced("candidate_ids", np.array([[1, 2, 3]])), "candidate_ids"),
    (replaced("candidate_ids", np.zeros((0, 1), np.int64)), "candidate"),
    (replaced("candidate_ids", np.zeros((3, 1), np.float32)), "candidate_ids"),
    (replaced("candidate_ids", np.ones((60, 1), np.int64)), "candidate"),
    (replaced("candidate_dense", np.array([[1], [np.nan], [0]], np.float32)), "candidate_dense"),
    (replaced("candidate_dense", np.array([[1], [np.inf], [0]], np.float32)), "candidate_dense"),
    (replaced("candidate_dense", np.array([[1], [3e38], [0]], np.float32)), "candidate_dense"),
    (replaced("candidate_dense", np.zeros((2, 1), np.float32)), "candidate"),
    (replaced("request_ids", np.zeros((2, 2), np.int64)), "request"),
    (replaced("request_ids", np.zeros((), np.int64)), "request_ids"),
    (replaced("colour", np.zeros((3, 1), np.int64)), "colour"),
    ({name: array for name, array in arrays().items() if name != "request_dense"}, "request_dense"),
]


@pytest.mark.parametrize(("tensors", "field"), BAD_TENSORS)
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_that_the_graph_would_misread_are_refused(
    stub: Any, tensors: dict[str, Any], field: str, *, raw: bool
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(infer_request(tensors, raw=raw))
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details()


def spoil(request: pb.ModelInferRequest, way: str) -> None:
    if way == "short contents":
        request.raw_input_contents[0] = request.raw_input_contents[0][:-8]
    elif way == "half an element":
        request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
    elif way == "one content too few":
        del request.raw_input_contents[-1]
    elif way == "a negative size":
        request.inputs[0].shape[:] = [-1, -2]
    elif way == "an enormous size":
        request.inputs[0].shape[:] = [2**62, 2**62]
    elif way == "a datatype":
        request.inputs[0].datatype = "BYTES"
    elif way == "an input twice":
        request.inputs[1].name = request.inputs[0].name
    elif way == "a version":
        request.model_version = "latest"
    elif way == "an output twice":
        request.outputs.extend([pb.ModelInferRequest.InferRequestedOutputTensor(name="rating")] * 2)
    else:
        request.outputs.add(name="colour")


@pytest.mark.parametrize(
    "way",
    [
        "short contents",
        "half an element",
        "one content too few",
        "a negative size",
        "an enormous size",
        "a datatype",
        "an input twice",
        "a version",
        "an output",
        "an output twice",
    ],
)
def test_a_request_that_contradicts_itself_is_refused(stub: Any, way: str) -> None:
    request = infer_request(arrays())
    spoil(request, way)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_server_and_its_models_say_what_they_are(stub: Any) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="tiny", version="1")).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "moerank"
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"))
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs][:2] == [
        ("request_ids", "INT64", [-1, 2]),
        ("request_dense", "FP32", [-1, 1]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [
        ("like", "FP32", [-1]),
        ("rating", "FP32", [-1]),
    ]
    config = stub.ModelConfig(pb.ModelConfigRequest(name="tiny")).config
    assert (config.max_batch_size, config.input[0].data_type) == (0, pb.TYPE_INT64)


def test_statistics_count_answers_rows_and_failures(stub: Any) -> None:
    for _ in range(3):
        stub.ModelInfer(infer_request(arrays()))
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(infer_request({}))
    (stats,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny")).model_stats
    assert (stats.inference_count, stats.execution_count) == (9, 3)
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (3, 1)
    parts = [getattr(stats.inference_stats, name).ns for name in ("queue", "compute_input", "compute_infer")]
    assert all(part > 0 for part in parts)
    assert stats.inference_stats.success.ns >= sum(parts)


def test_the_repository_lists_versions(stub: Any, store: Path, tmp_path: Path) -> None:
    publish_tiny(store, tmp_path / "other", model="other")
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert ("tiny", "1", "READY") in [(m.name, m.version, m.state) for m in index]


def test_callers_may_not_unload_models_unless_the_operator_lets_them(stub: Any) -> None:
    for method, message in (
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="tiny")),
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="tiny")),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            method(message)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_models_can_be_unloaded_and_loaded_where_that_is_allowed(store: Path, tmp_path: Path) -> None:
    settings = ServerSettings(store=store, port=0, model_control=True, poll_seconds=600)
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny"))
        server.registry.refresh()
        assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny")).ready
        assert not stub.ServerReady(pb.ServerReadyRequest()).ready
        publish_tiny(store, tmp_path / "two", seed=1)
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
        assert list(stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny")).versions) == ["2"]
        with pytest.raises(grpc.RpcError) as refused:
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="absent"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_unknown_model_is_not_ready_which_is_no_error(stub: Any) -> None:
    assert not stub.ModelReady(pb.ModelReadyRequest(name="nobody")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="tiny", version="9")).ready
