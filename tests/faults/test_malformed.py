"""Malformed requests: no crash, no UNKNOWN, no internal text, no NaN, and good requests are answered in between."""

import random
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.client.client_request import build_request
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.stubs.inference import grpc_service_pb2
from serving.stubs.moerank.v1 import ranking_pb2
from tests.faults.conftest import FRONTS, Front, Rounds, seeded
from tests.patience import PATIENCE

SAME = (("x-request-id", "same"),)
# An answer names its request.
METHOD = "/moerank.v1.RankingService/Rank"
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
INTERNAL_TEXT = re.compile(
    r'Traceback|File "|/home/|/work|/tmp|\.py\b|site-packages|onnxruntime|numpy|pyarrow|0x[0-9a-f]{6}'
)
EXTREMES = [0, -1, 1, 2**63 - 1, -(2**63), 2**31, -(2**31), 10**18]
NUMBERS = [float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, -0.0, 3.5e38]
TEXTS = ["", " ", "\0", "a" * 5000, "\u202e", "💥" * 50, "home", "'; DROP TABLE items; --", "../../etc/passwd"]


def good() -> ranking_pb2.RankRequest:
    return build_request(user=3, items=range(100, 110), context={"tab": "home"}, item_features={"price": [0.5] * 10})


def anything(dice: random.Random) -> Any:
    return dice.choice(
        [None, True, dice.choice(EXTREMES), dice.choice(NUMBERS), dice.choice(TEXTS), [], [1, "a"], [None], [[["x"]]]]
    )


def strange(dice: random.Random) -> bytes:
    """A request that parses and means nothing good."""
    count = dice.choice([0, 1, 2, 10, 60])
    ids: list[Any] = [dice.choice(EXTREMES) for _ in range(count)]
    if dice.random() < 0.4:
        ids = [dice.choice(TEXTS) for _ in range(count)]
    names = ["tab", "price", "recent", "words", "activity", "user_id", "item_id", "", "colour", "\0", "a" * 300]
    return build_request(
        user=dice.choice([None, *EXTREMES, *TEXTS]),
        items=ids,
        context={dice.choice(names): anything(dice)},
        user_features={dice.choice(names): anything(dice)},
        item_features={dice.choice(names): [anything(dice) for _ in range(dice.choice([0, 1, count, count]))]},
        top_k=dice.choice([0, 1, 2**32 - 1]),
        model=dice.choice(["", "", "tiny", *TEXTS]),
        version=dice.choice([0, 0, *EXTREMES]),
    ).SerializeToString()


def random_bytes(dice: random.Random) -> bytes:
    return dice.randbytes(dice.choice([0, 1, 2, 10, 100, 3000]))


def mutated(dice: random.Random) -> bytes:
    return mutation(good().SerializeToString(), dice)


def mutation(sound: bytes, dice: random.Random) -> bytes:
    body = bytearray(sound)
    for _ in range(dice.choice([1, 1, 2, 8])):
        place = dice.randrange(len(body))
        way = dice.randrange(4)
        if way == 0:
            body[place] ^= 1 << dice.randrange(8)
        elif way == 1:
            del body[place : place + dice.randrange(1, 20)]
        elif way == 2:
            body[place:place] = dice.randbytes(dice.randrange(1, 20))
        else:
            body.extend(body[: dice.randrange(len(body) or 1)])
        if not body:
            return b""
    return bytes(body)


def wrong_wire_types(dice: random.Random) -> bytes:
    parts = []
    for _ in range(dice.randrange(1, 6)):
        field, wire = dice.randrange(0, 12), dice.randrange(8)
        payload = {0: b"\xff\x01", 1: struct.pack("<d", float("nan")), 5: b"abcd"}.get(wire, b"\x03abc")
        parts.append(bytes([field << 3 & 0x78 | wire]) + payload)
    return b"".join(parts)


def nested(dice: random.Random) -> bytes:
    """Lists in lists, by hand: protobuf itself refuses to write the deepest."""
    value = ranking_pb2.Value(integer=1).SerializeToString()
    for _ in range(dice.choice([3, 5, 30, 90, 300])):
        value = field(9, field(1, value))
    entry = field(1, b"tab") + field(2, value)
    return good().SerializeToString() + field(5, entry)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    length, size = b"", len(content)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def huge(dice: random.Random) -> bytes:
    ids = dice.choice([range(1_000_000), [7] * 1_000_000])
    return build_request(user=1, items=ids).SerializeToString()


def infer(dice: random.Random) -> bytes:
    """A ModelInfer request that is right but for its numbers, sizes or types, if for anything."""
    request = grpc_service_pb2.ModelInferRequest(model_name="tiny")
    rows = dice.choice([0, 1, 3, 60])
    arrays = {
        "request_ids": np.array([[dice.choice([1, *EXTREMES]), 1]], np.int64),
        "request_dense": np.array([[dice.choice([0.5, *NUMBERS])]]),
        "candidate_ids": np.array([[dice.choice([1, 2, *EXTREMES])] for _ in range(rows)], np.int64).reshape(rows, 1),
        "candidate_dense": np.array([[dice.choice([0.1, *NUMBERS])] for _ in range(rows)]).reshape(rows, 1),
    }
    for name, array in arrays.items():
        kind = "INT64" if array.dtype == np.int64 else "FP32"
        tensor = request.inputs.add(name=name, datatype=dice.choice([kind] * 8 + ["INT32", "BYTES", "FP64", ""]))
        tensor.shape.extend(dice.choice([array.shape] * 8 + [(), (-1, 2), (2**62, 4), (0,)]))
        with np.errstate(over="ignore"):
            content = array if kind == "INT64" else array.astype(np.float32)
        if dice.random() < 0.7:
            request.raw_input_contents.append(content.tobytes()[: dice.choice([None, None, None, None, 0, 3])])
        elif kind == "INT64":
            tensor.contents.int64_contents.extend(content.ravel().tolist())
        else:
            tensor.contents.fp32_contents.extend(content.ravel().tolist())
    return request.SerializeToString()


def others(count: int) -> Iterator[tuple[str, bytes]]:
    """Malformed requests to every method but Rank."""
    dice = seeded()
    batch = ranking_pb2.BatchRankRequest(requests=[good()] * 2).SerializeToString()
    named = grpc_service_pb2.ModelReadyRequest(name="tiny", version="1").SerializeToString()
    ours, theirs = "moerank.v1.RankingService", "inference.GRPCInferenceService"
    plain = [f"/{ours}/GetModel", f"/{ours}/ListModels"]
    plain += [f"/{theirs}/{method}" for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")]
    plain += [f"/{theirs}/{method}" for method in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")]
    for _ in range(count):
        way = dice.randrange(5)
        if way < 2:
            yield f"/{theirs}/ModelInfer", infer(dice)
        elif way == 2:
            yield f"/{theirs}/ModelInfer", mutation(infer(dice) or b"\n", dice)
        elif way == 3:
            yield f"/{ours}/BatchRank", mutation(batch, dice)
        else:
            yield dice.choice(plain), dice.choice([mutation(named, dice), random_bytes(dice)])


def infer_problem(body: bytes) -> str | None:
    """What is wrong about the numbers of an answer, if anything."""
    answer = grpc_service_pb2.ModelInferResponse.FromString(body)
    raw = [np.frombuffer(content, np.float32) for content in answer.raw_output_contents]
    values = raw or [np.array(output.contents.fp32_contents) for output in answer.outputs]
    sizes = [tuple(output.shape) for output in answer.outputs]
    right = [np.isfinite(column).all() and column.shape == size for column, size in zip(values, sizes, strict=True)]
    return None if right and all(right) else "an answer is not finite, or not of its shape"


def problem_of(body: bytes, code: grpc.StatusCode, text: str, answer: bytes | None) -> str | None:
    """What is wrong about an answer, if anything."""
    if code not in ALLOWED:
        return f"{code} {text!r} for {body[:80]!r}"
    if INTERNAL_TEXT.search(text):
        return f"internal text {text!r} for {body[:80]!r}"
    if answer is None:
        return None
    response = ranking_pb2.RankResponse.FromString(answer)
    values = [response.scores, *(predictions.values for predictions in response.predictions.values())]
    if not all(np.isfinite(column).all() and len(column) == len(response.scores) for column in values):
        return f"not finite, or lengths differ, for {body[:80]!r}"
    return None


def ask(call: Callable[..., bytes], body: bytes) -> str | None:
    try:
        answer = call(body, timeout=PATIENCE)
    except grpc.RpcError as error:
        failed: Any = error
        return problem_of(body, failed.code(), failed.details() or "", None)
    return problem_of(body, grpc.StatusCode.OK, "", answer)


def bodies(count: int) -> Iterator[bytes]:
    dice = seeded()
    makers = [random_bytes, mutated, mutated, wrong_wire_types, strange, strange, strange, nested]
    for number in range(count):
        yield huge(dice) if number % 1000 == 500 else dice.choice(makers)(dice)


@pytest.mark.parametrize("front", FRONTS)
def test_malformed_requests_do_no_harm(store: Path, rounds: type[Rounds], front: Front) -> None:
    settings = ServerSettings(store=store, port=0, front=front, max_candidates=50, threads=2, max_message_bytes=1 << 25)
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(METHOD, bytes, bytes)
        expected = call(good().SerializeToString(), metadata=SAME)
        for number, body in enumerate(bodies(rounds.of(4000, 20_000))):
            assert ask(call, body) is None
            if number % 1000 == 999:
                assert call(good().SerializeToString(), metadata=SAME) == expected


@pytest.mark.parametrize("front", FRONTS)
def test_malformed_requests_to_the_other_methods_do_no_harm(store: Path, rounds: type[Rounds], front: Front) -> None:
    settings = ServerSettings(store=store, port=0, front=front, max_candidates=50, threads=2)
    answered = 0
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        rank = channel.unary_unary(METHOD, bytes, bytes)
        expected = rank(good().SerializeToString(), metadata=SAME)
        for number, (method, body) in enumerate(others(rounds.of(1000, 10_000))):
            if number % 1000 == 999:
                assert rank(good().SerializeToString(), metadata=SAME) == expected
            call: Any = channel.unary_unary(method, bytes, bytes)
            try:
                answer = call(body, timeout=PATIENCE)
            except grpc.RpcError as error:
                failed: Any = error
                assert failed.code() in {*ALLOWED, grpc.StatusCode.PERMISSION_DENIED}, (method, failed.details())
                assert not INTERNAL_TEXT.search(failed.details() or ""), (method, failed.details())
                continue
            answered += 1
            if method.endswith("ModelInfer"):
                assert infer_problem(answer) is None
        assert rank(good().SerializeToString(), metadata=SAME) == expected
    assert answered


def test_control_an_unprotected_handler_is_caught() -> None:
    def rank(body: bytes, _: grpc.ServicerContext) -> bytes:
        request = ranking_pb2.RankRequest.FromString(body)
        scores = np.array(request.items.integers.values, np.float32) / (len(request.context) - 1)
        return ranking_pb2.RankResponse(scores=scores).SerializeToString()

    handlers = {"Rank": grpc.unary_unary_rpc_method_handler(rank)}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("moerank.v1.RankingService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(METHOD, bytes, bytes)
        problems = {problem.split()[0] for body in bodies(300) if (problem := ask(call, body))}
    server.stop(None).wait()
    assert "StatusCode.UNKNOWN" in problems
