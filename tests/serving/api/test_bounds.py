"""Sizes and work are bounded, by field name, and what training never saw is clipped and named."""

import time
from pathlib import Path

import numpy as np
import pytest

from contract.errors import DeadlineError, RequestError
from features.online.request_encoder import RankRequest, RequestEncoder
from serving.api.codec_rank import request_from
from serving.client.blocking_client import RankingClient
from serving.client.client_request import build_request
from serving.graph.context import CallContext
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE

LONG = "x" * (4 << 20)


@pytest.fixture
def encoder(store: Path) -> RequestEncoder:
    return RequestEncoder.open(store / "tiny" / "1")


def test_a_long_text_is_refused_by_field_before_anything_is_made_of_it(encoder: RequestEncoder) -> None:
    cases = {
        "context.tab": RankRequest(1, [100], {"tab": LONG}),
        "user": RankRequest(LONG, [100]),
        "items": RankRequest(1, [LONG]),
    }
    for field, request in cases.items():
        began = time.process_time()
        with pytest.raises(RequestError) as refused:
            encoder.encode(request)
        assert refused.value.field == field
        assert len(str(refused.value)) < 500
        # Half a second of one core, where it was seven.
        assert time.process_time() - began < 0.5


def test_an_id_of_a_kibibyte_passes_and_one_more_byte_does_not(encoder: RequestEncoder) -> None:
    encoder.encode(RankRequest(1, [100], {"tab": "é" * 512}))
    with pytest.raises(RequestError, match="1025 bytes"):
        encoder.encode(RankRequest(1, [100], {"tab": "é" * 512 + "x"}))


def test_long_lists_and_many_features_are_refused_while_the_message_is_read() -> None:
    for field, request in {
        "context.tab": build_request(user=1, items=[1], context={"tab": [1] * 4097}),
        "user_features": build_request(user=1, items=[1], user_features={f"f{i}": 1 for i in range(4097)}),
        "item_features.price": build_request(user=1, items=[1], item_features={"price": [1.0, 2.0]}),
    }.items():
        with pytest.raises(RequestError) as refused:
            request_from(request)
        assert refused.value.field == field


def test_the_deadline_is_looked_at_while_a_request_is_read_and_encoded(encoder: RequestEncoder) -> None:
    past = CallContext("a", expires=time.monotonic() - 1).require_time
    message = build_request(user=1, items=[100, 101], item_features={"price": [1.0, 2.0]})
    with pytest.raises(DeadlineError):
        request_from(message, past)
    with pytest.raises(DeadlineError):
        encoder.encode(RankRequest(1, [100]), past)


def test_numbers_beyond_what_training_saw_are_clipped_counted_and_named(store: Path) -> None:
    with (
        start(ServerSettings(store=store, port=0)) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        far = client.rank(1, [100, 101], {"tab": "home"}, user_features={"activity": 1e300})
        most = client.rank(1, [100, 101], {"tab": "home"}, user_features={"activity": 8.0})
        np.testing.assert_array_equal(far.scores, most.scores)
        assert far.answer.clipped == {"activity": 1}
        assert most.answer.clipped == {}
        (work,) = server.telemetry.work()
        assert work.clipped == {"activity": 1}


def test_context_that_is_missing_or_was_never_seen_is_named(client: RankingClient, server: RunningServer) -> None:
    assert client.rank(1, [100]).answer.missing_context == ("tab",)
    assert client.rank(1, [100], {"tab": "moon"}).answer.unseen_context == ("tab",)
    known = client.rank(1, [100], {"tab": "home"}).answer
    assert (known.missing_context, known.unseen_context) == ((), ())
    (work,) = server.telemetry.work()
    assert (work.missing_context, work.unseen_context) == ({"tab": 1}, {"tab": 1})


def test_an_answer_names_its_request_and_arm(client: RankingClient) -> None:
    answer = client.rank(1, [100])
    assert answer.request_id
    assert answer.arm == "current"


def test_a_model_says_what_its_features_take(client: RankingClient) -> None:
    features = {feature.name: feature for feature in client.model().features}
    assert features["tab"].type == "string"
    assert features["activity"].type == "number"
    assert (features["activity"].lowest, features["activity"].highest) == (0.0, 8.0)
