"""An answer's bytes, which are written by hand, are those of the protocol."""

import string
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.api.codec_rank import answer_bytes, batch_bytes
from serving.graph.answer import RankAnswer
from serving.stubs.moerank.v1 import ranking_pb2

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TASKS = st.sets(st.text(string.ascii_letters, min_size=1, max_size=9), min_size=1, max_size=3)


@st.composite
def answers(draw: Any) -> RankAnswer:
    rows = draw(st.sampled_from([1, 2, 31, 32, 33, 5000]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    tasks = draw(TASKS)
    return RankAnswer(
        model=draw(st.text(max_size=200)),
        version=draw(st.integers(1, 2**62)),
        predictions={task: rng.random(rows, np.float32) for task in tasks},
        scores=rng.random(rows, np.float32),
        order=rng.permutation(rows).astype(np.uint32)[: draw(st.integers(1, rows))],
        score_version="0123456789ab",
        unknown_user=draw(st.booleans()),
        unknown_items=np.arange(draw(st.integers(0, rows)), dtype=np.uint32),
        missing_context=tuple(draw(st.sets(st.text(max_size=3), max_size=2))),
        clipped=draw(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 9), max_size=2)),
        request_id=draw(st.text(string.ascii_letters, max_size=64)),
        arm=draw(st.sampled_from(["current", "canary"])),
    )


def expected(answer: RankAnswer) -> ranking_pb2.RankResponse:
    return ranking_pb2.RankResponse(
        model=answer.model,
        version=answer.version,
        predictions={
            task: ranking_pb2.Predictions(values=values.tolist()) for task, values in answer.predictions.items()
        },
        scores=answer.scores.tolist(),
        order=answer.order.tolist(),
        score_version=answer.score_version,
        unknown_user=answer.unknown_user,
        unknown_items=answer.unknown_items.tolist(),
        request_id=answer.request_id,
        arm=answer.arm,
        missing_context=answer.missing_context,
        clipped=answer.clipped,
    )


@given(answers())
def test_an_answer_is_read_as_it_was_written(answer: RankAnswer) -> None:
    assert ranking_pb2.RankResponse.FromString(answer_bytes(answer)) == expected(answer)


@given(st.lists(answers(), max_size=3))
def test_a_batch_is_read_as_it_was_written(batch: list[RankAnswer]) -> None:
    body = batch_bytes(batch, [False] * len(batch))
    assert list(ranking_pb2.BatchRankResponse.FromString(body).responses) == [expected(each) for each in batch]
