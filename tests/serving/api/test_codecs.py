"""Bytes of answers and tensors are read back as the arrays that they were made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import RequestError
from serving.api.codec_oip import arrays_from, response_of
from serving.api.codec_rank import answer_bytes, batch_bytes, parse
from serving.client.client_response import answer_from
from serving.graph.answer import ExpertUse, GateUse, RankAnswer
from serving.stubs.inference import grpc_service_pb2 as pb
from serving.stubs.moerank.v1 import ranking_pb2

FLOATS = st.floats(width=32, allow_nan=False)
NAMES = st.text("abc", min_size=1, max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> RankAnswer:
    rows = draw(st.integers(1, 6))

    def column() -> NDArray[np.float32]:
        return np.array(draw(st.lists(FLOATS, min_size=rows, max_size=rows)), np.float32)

    positions = st.lists(st.integers(0, rows - 1), unique=True)
    gates = (GateUse(0, ("like",), np.stack([column(), column()], 1)), GateUse(1, ("like", "rate"), column()[:, None]))
    return RankAnswer(
        model=draw(NAMES),
        version=draw(st.integers(1, 2**31 - 1)),
        predictions={"like": column(), "rate": column()},
        scores=column(),
        order=np.array(draw(positions), np.uint32),
        score_version=draw(NAMES),
        unknown_user=draw(st.booleans()),
        unknown_items=np.array(draw(positions), np.uint32),
        experts=draw(st.sampled_from([None, ExpertUse(gates)])),
        missing_context=tuple(draw(st.lists(NAMES))),
        unseen_context=tuple(draw(st.lists(NAMES))),
        clipped=draw(st.dictionaries(NAMES, st.integers(1, 99))),
        sources=draw(st.dictionaries(NAMES, NAMES)),
        request_id=draw(NAMES),
        arm=draw(st.sampled_from(["current", "canary"])),
    )


def plain(answer: RankAnswer) -> dict[str, object]:
    """All fields as values that compare exactly."""
    gates = () if answer.experts is None else answer.experts.gates
    return vars(answer) | {
        "predictions": {task: values.tobytes() for task, values in answer.predictions.items()},
        "scores": answer.scores.tobytes(),
        "order": answer.order.tolist(),
        "unknown_items": answer.unknown_items.tolist(),
        "experts": [(gate.level, gate.tasks, gate.weights.tolist()) for gate in gates],
        "clipped": dict(answer.clipped),
        "sources": dict(answer.sources),
    }


@given(answers())
def test_a_client_reads_the_answer_that_the_server_gave(answer: RankAnswer) -> None:
    message = ranking_pb2.RankResponse.FromString(answer_bytes(answer, debug=True))
    assert plain(answer_from(message)) == plain(answer)


@given(answers())
def test_experts_and_sources_come_only_where_they_were_asked_for(answer: RankAnswer) -> None:
    read = answer_from(ranking_pb2.RankResponse.FromString(answer_bytes(answer)))
    assert (read.experts, read.sources) == (None, {})
    assert read.scores.tobytes() == answer.scores.tobytes()


@given(st.lists(answers(), min_size=1, max_size=3))
def test_the_answers_of_a_batch_come_in_their_order(batch: list[RankAnswer]) -> None:
    message = ranking_pb2.BatchRankResponse.FromString(batch_bytes(batch, [True] * len(batch)))
    assert [plain(answer_from(each)) for each in message.responses] == [plain(answer) for answer in batch]


def test_bytes_of_another_message_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"are not a moerank\.v1\.RankRequest"):
        parse(ranking_pb2.RankRequest, b"\xff\xff")


def infer_request(ids: NDArray[np.int64], dense: NDArray[np.float32], *, raw: bool) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor
    request = pb.ModelInferRequest(
        id="7",
        inputs=[
            tensor(name="ids", datatype="INT64", shape=ids.shape),
            tensor(name="dense", datatype="FP32", shape=dense.shape),
        ],
    )
    if raw:
        request.raw_input_contents.extend([ids.tobytes(), dense.tobytes()])
    else:
        request.inputs[0].contents.int64_contents.extend(ids.ravel().tolist())
        request.inputs[1].contents.fp32_contents.extend(dense.ravel().tolist())
    return request


@given(rows=st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), FLOATS), min_size=1, max_size=5), raw=st.booleans())
def test_tensors_arrive_and_their_predictions_return_the_same_way(rows: list[tuple[int, float]], *, raw: bool) -> None:
    ids = np.array([[number] for number, _ in rows], np.int64)
    dense = np.array([value for _, value in rows], np.float32)
    request = infer_request(ids, dense, raw=raw)
    arrays = arrays_from(request)
    assert arrays["ids"].tolist() == ids.tolist()
    assert arrays["dense"].tobytes() == dense.tobytes()
    body = response_of("m", 3, request, {"like": dense, "rate": -dense}, ("rate", "like"), {"arm": "current"})
    response = pb.ModelInferResponse.FromString(body)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "7")
    assert [(each.name, list(each.shape)) for each in response.outputs] == [
        ("rate", [len(rows)]),
        ("like", [len(rows)]),
    ]
    values = (
        [np.frombuffer(each, "<f4") for each in response.raw_output_contents]
        if raw
        else [np.array(each.contents.fp32_contents, np.float32) for each in response.outputs]
    )
    assert [each.tobytes() for each in values] == [(-dense).tobytes(), dense.tobytes()]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"datatype": "FP64"}, "allowed are INT64, FP32"),
        ({"shape": [3]}, "do not fill the shape"),
        ({"shape": [-1]}, "none negative"),
        ({"name": "dense"}, "comes twice"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(change: dict[str, object], text: str) -> None:
    request = infer_request(np.zeros((2, 1), np.int64), np.zeros(2, np.float32), raw=False)
    for field, value in change.items():
        if isinstance(value, list):
            del request.inputs[0].shape[:]
            request.inputs[0].shape.extend(value)
        else:
            setattr(request.inputs[0], field, value)
    with pytest.raises(RequestError, match=text):
        arrays_from(request)
