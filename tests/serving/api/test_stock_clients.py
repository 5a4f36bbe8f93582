"""Stock clients work: tritonclient and grpcurl, each in a process of its own, for their descriptors clash with ours."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from serving.client.blocking_client import RankingClient
from serving.generate import ROOT
from serving.grpc_server.server import RunningServer
from tests.patience import PATIENCE

TRITON = """
import sys
import numpy as np
import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
assert client.get_server_metadata().name == "moerank"
metadata = client.get_model_metadata("tiny")
assert [tensor.name for tensor in metadata.outputs] == ["like", "rating"]
assert client.get_model_config("tiny").config.max_batch_size == 0
assert [model.name for model in client.get_model_repository_index().models] == ["tiny"]
arrays = {
    "request_ids": np.array([[1, 1]]),
    "request_dense": np.array([[0.5]], np.float32),
    "candidate_ids": np.array([[1], [2], [3]]),
    "candidate_dense": np.zeros((3, 1), np.float32),
}
inputs = []
for name, array in arrays.items():
    tensor = grpcclient.InferInput(name, array.shape, "INT64" if array.dtype.kind == "i" else "FP32")
    tensor.set_data_from_numpy(array)
    inputs.append(tensor)
answer = client.infer("tiny", inputs, request_id="9")
like = answer.as_numpy("like")
assert like.shape == (3,) and like.dtype == np.float32 and ((like > 0) & (like < 1)).all(), like
statistics = client.get_inference_statistics("tiny").model_stats[0]
assert statistics.inference_count == 3 and statistics.inference_stats.success.count == 1
"""

NODE_PACKAGES = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")


def test_a_stock_tritonclient_works(server: RunningServer) -> None:
    if find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed")
    command = [sys.executable, "-c", TRITON, f"127.0.0.1:{server.port}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def grpcurl(server: RunningServer, *arguments: str, body: str = "") -> str:
    program = shutil.which("grpcurl", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("grpcurl is not installed")
    data = ["-d", body] if body else []
    command = [program, "-plaintext", *data, f"127.0.0.1:{server.port}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_grpcurl_lists_and_describes_the_services(server: RunningServer) -> None:
    listed = grpcurl(server, "list").split()
    assert {"moerank.v1.RankingService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(listed)
    assert "rpc Rank" in grpcurl(server, "describe", "moerank.v1.RankingService")


def test_grpcurl_ranks(server: RunningServer) -> None:
    candidates = {"integers": {"values": [100, 101, 7]}}
    body = json.dumps({"user": {"integer": 1}, "items": candidates, "context": {"tab": {"text": "home"}}})
    answer = json.loads(grpcurl(server, "moerank.v1.RankingService/Rank", body=body))
    assert (answer["model"], answer["version"], answer["unknown_items"]) == ("tiny", "1", [2])
    assert sorted(answer["order"]) == [0, 1, 2]
    assert len(answer["predictions"]["like"]["values"]) == 3


@pytest.fixture(scope="module")
def node_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Node's own gRPC library."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed (Debian: apt-get install nodejs npm)")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), *NODE_PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {', '.join(NODE_PACKAGES)}: {done.stderr[-200:]}")
    return folder


def test_a_node_client_made_from_the_protos_ranks_and_reads_a_refusal(
    node_packages: Path, server: RunningServer, client: RankingClient
) -> None:
    program = node_packages / "node_client.js"
    shutil.copyfile(Path(__file__).parent / "node_client.js", program)
    proto = ROOT / "proto" / "moerank" / "v1" / "ranking.proto"
    command = ["node", str(program), f"127.0.0.1:{server.port}", str(proto)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    expected = client.rank(1, [100, 101, 7], {"tab": "home"}, top_k=2)
    assert (answer["model"], answer["version"], answer["request_id"]) == ("tiny", 1, "node-1")
    assert (answer["order"], answer["unknown_items"], answer["arm"]) == (list(expected.answer.order), [2], "current")
    assert answer["like"] == pytest.approx(list(expected.predictions["like"]))
    assert (answer["refused"]["code"], answer["refused"]["details"]) == (3, 1)
    assert "planet" in answer["refused"]["message"]
