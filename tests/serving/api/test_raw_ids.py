"""A stock client of the Open Inference Protocol ranks by raw ids, as typed or as raw contents."""

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import grpc
import numpy as np
import pytest

from contract.errors import RequestError
from serving.api.codec_oip import arrays_from
from serving.api.codec_raw_ids import count_raw_items, raw_request_from
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import RunningServer
from serving.stubs.inference import grpc_service_pb2 as pb
from serving.stubs.inference import grpc_service_pb2_grpc

# In a process of its own, for its descriptors clash with ours.
TRITON = """
import json
import sys
import numpy as np
import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient(sys.argv[1])
assert not client.is_model_ready("absent")
inputs = []
arrays = {"user": np.array([3]), "items": np.array([105, 100, 7777]), "tab": np.array([b"home"], object)}
for name, values in arrays.items():
    tensor = grpcclient.InferInput(name, values.shape, "BYTES" if values.dtype == object else "INT64")
    tensor.set_data_from_numpy(values)
    inputs.append(tensor)
answer = client.infer("tiny", inputs)
print(json.dumps(answer.as_numpy("like").tolist()))
"""


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
def test_a_stock_tritonclient_ranks_by_raw_ids(server: RunningServer, client: RankingClient) -> None:
    command = [sys.executable, "-c", TRITON, f"127.0.0.1:{server.port}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    expected = client.rank(3, [105, 100, 7777], {"tab": "home"}).predictions["like"]
    np.testing.assert_array_equal(np.array(json.loads(run.stdout), np.float32), expected)


def message(name: str, datatype: str, shape: list[int], raw: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny")
    request.inputs.add(name="items", datatype="INT64", shape=[1])
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.extend([np.array([100]).tobytes(), raw])
    return request


def test_typed_contents_rank_as_well(server: RunningServer, client: RankingClient) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        request = pb.ModelInferRequest(model_name="tiny")
        items = request.inputs.add(name="items", datatype="INT64", shape=[2])
        items.contents.int64_contents.extend([100, 101])
        answer = stub.ModelInfer(request)
        with pytest.raises(grpc.RpcError, match="no context feature 'colour'"):
            stub.ModelInfer(message("colour", "BYTES", [1], b"\x03\0\0\0red"))
    values = {out.name: list(out.contents.fp32_contents) for out in answer.outputs}
    np.testing.assert_array_equal(values["like"], client.rank(None, [100, 101]).predictions["like"])


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("INT64", [2], np.array([1, 2]).tobytes()),
        ("INT64", [1], b"\0\0\0"),
        ("BYTES", [1], b"\xff\0\0\0x"),
        ("BYTES", [1], b"\x01\0\0\0\xff"),
        ("FP16", [1], b"\0\0"),
        ("INT64", [-1, -1], np.array([1]).tobytes()),
        ("INT64", [2**62] * 300_000, np.array([1]).tobytes()),
    ],
)
def test_wrong_tensors_are_refused_by_name(datatype: str, shape: list[int], raw: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        raw_request_from(message("user", datatype, shape, raw))
    assert refused.value.field == "user"


def test_an_input_that_comes_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="comes twice"):
        raw_request_from(message("items", "INT64", [1], np.array([1]).tobytes()))


def test_a_shape_of_thousands_of_lengths_is_refused_before_they_are_multiplied() -> None:
    request = pb.ModelInferRequest()
    request.inputs.add(name="items", datatype="INT64", shape=[2**62] * 300_000)
    with pytest.raises(RequestError, match="allowed are 8 lengths"):
        count_raw_items(request)
    with pytest.raises(RequestError, match="allowed are 8 lengths"):
        arrays_from(request)
