"""What the server answers, through the public client and the stock stubs."""

import logging
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError, RequestError, UnavailableError
from features.online.request_encoder import RankRequest
from serving.client.blocking_client import Query, RankingClient
from serving.client.client_request import build_request
from serving.graph.served_model import RankingModel
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.stubs.moerank.v1 import ranking_pb2, ranking_pb2_grpc
from tests.card import HAS_CARD
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny


def test_a_ranking_is_what_the_model_answers_in_process(client: RankingClient, store: Path) -> None:
    items = [105, 100, 119, 110]
    result = client.rank(3, items, {"tab": "home"})
    expected = RankingModel.open(store / "tiny" / "1").rank(RankRequest(3, items, {"tab": "home"}))
    for task, values in expected.predictions.items():
        np.testing.assert_array_equal(result.predictions[task], values)
    np.testing.assert_array_equal(result.scores, expected.scores)
    assert result.ranked == [items[position] for position in np.argsort(-expected.scores)]
    assert (result.model, result.version) == ("tiny", 1)
    assert not result.unknown_user
    assert result.unknown_items == []


@pytest.mark.skipif(HAS_CARD, reason="this machine has a card")
def test_a_server_that_finds_no_card_says_what_does_nothing(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ServerSettings(store=store, port=0, device="auto", cuda_precision="fp16")
    with caplog.at_level(logging.WARNING), start(settings):
        assert [record.getMessage() for record in caplog.records] == [settings.without_a_card()]


def test_unknown_ids_are_answered_and_named(client: RankingClient) -> None:
    result = client.rank(999, [100, 7777, 101, -1])
    assert result.unknown_user
    assert result.unknown_items == [7777, -1]
    assert len(result.scores) == 4


def test_top_k_orders_the_best_and_still_predicts_all(client: RankingClient) -> None:
    full = client.rank(1, range(100, 110))
    best = client.rank(1, range(100, 110), top_k=3)
    assert best.ranked == full.ranked[:3]
    assert len(best.scores) == 10


def test_equal_scores_keep_the_order_of_the_request(client: RankingClient) -> None:
    assert client.rank(1, [102, 102, 102]).answer.order.tolist() == [0, 1, 2]


def test_features_in_the_request_override_the_tables(client: RankingClient) -> None:
    plain = client.rank(1, [100, 101], {"tab": "home"})
    other = client.rank(1, [100, 101], {"tab": "search"}, user_features={"activity": 2.5})
    priced = client.rank(1, [100, 101], {"tab": "home"}, item_features={"price": [None, 4.0]})
    assert (plain.scores != other.scores).all()
    assert priced.predictions["rating"][1] > plain.predictions["rating"][1]


def test_a_batch_answers_each_user_as_alone(client: RankingClient) -> None:
    queries = [Query(1, [100, 101]), Query(2, [110], {"tab": "home"}), Query(None, [111, 112], top_k=1)]
    for query, together in zip(queries, client.batch_rank(queries), strict=True):
        alone = client.rank(query.user, query.items, query.context, top_k=query.top_k)
        np.testing.assert_array_equal(together.scores, alone.scores)
        assert together.ranked == alone.ranked


def test_models_describe_themselves(client: RankingClient) -> None:
    model = client.model()
    assert [model] == client.models()
    assert (model.name, model.version, model.git_revision) == ("tiny", 1, "abc")
    assert [(task.name, task.kind, task.unit) for task in model.tasks] == [
        ("like", ranking_pb2.TASK_KIND_BINARY, ""),
        ("rating", ranking_pb2.TASK_KIND_REGRESSION, "stars"),
    ]
    assert {f.name: f.side for f in model.features}["tab"] == ranking_pb2.SIDE_CONTEXT
    assert model.score == "1 * like"


def test_the_stock_stub_understands_the_answer(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)  # type: ignore[no-untyped-call]
        items = ranking_pb2.Ids(integers=ranking_pb2.IntegerList(values=[100, 5555]))
        answer = stub.Rank(ranking_pb2.RankRequest(user=ranking_pb2.Id(integer=1), items=items))
    assert list(answer.unknown_items) == [1]
    assert sorted(answer.order) == [0, 1]
    assert len(answer.predictions["like"].values) == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"items": []}, "items"),
        ({"items": [100] * 51}, "items"),
        ({"items": ["film"]}, "items"),
        ({"user": "ann"}, "user"),
        ({"context": {"colour": "red"}}, "context.colour"),
        ({"context": {"tab": 3}}, "context.tab"),
        ({"user_features": {"activity": float("nan")}}, "user_features.activity"),
        ({"item_features": {"price": [1.0]}}, "item_features.price"),
        ({"item_features": {"price": [1.0, float("inf")]}}, "item_features.price"),
        ({"item_features": {"price": ["a", "b"]}}, "item_features.price"),
        ({"item_features": {"price": []}}, "item_features.price"),
        ({"version": -1}, "version"),
    ],
)
def test_a_bad_request_is_refused_with_the_field_at_fault(
    client: RankingClient, arguments: dict[str, object], field: str
) -> None:
    with pytest.raises(RequestError) as refused:
        client.rank(**{"user": 1, "items": [100, 101], **arguments})  # type: ignore[arg-type]
    assert refused.value.field == field


def test_a_bad_request_in_a_batch_is_named_by_its_place(client: RankingClient) -> None:
    with pytest.raises(RequestError, match=r"^requests\[1\]: ") as refused:
        client.batch_rank([Query(1, [100]), Query(1, [100], {"colour": "red"})])
    assert refused.value.field == "requests[1].context.colour"
    for queries in ([], [Query(1, [100])] * 5, [Query(1, [100] * 30)] * 2):
        with pytest.raises(RequestError):
            client.batch_rank(queries)


def test_a_refusal_carries_googles_details(server: RunningServer) -> None:
    body = build_request(user=1, items=[100], context={"colour": "red"}).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary("/moerank.v1.RankingService/Rank", bytes, bytes)
        with pytest.raises(grpc.RpcError) as refused:
            call(body, metadata=(("x-request-id", "abc"),))
    error: Any = refused.value
    status = rpc_status.from_call(error)
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert [detail.Unpack(kind) for detail, kind in zip(status.details, (info, bad), strict=True)] == [True, True]
    assert (info.reason, info.domain, dict(info.metadata)) == ("REQUEST_INVALID", "moerank", {"request_id": "abc"})
    (violation,) = bad.field_violations
    assert violation.field == "context.colour"
    assert "colour" in violation.description


def test_bytes_that_are_no_message_are_an_invalid_argument(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/moerank.v1.RankingService/Rank", bytes, bytes)(b"\xff\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_models_and_versions_that_are_not_served_are_not_found(client: RankingClient) -> None:
    with pytest.raises(ModelNotFoundError, match="it serves tiny"):
        client.rank(1, [100], model="huge")
    with pytest.raises(ModelNotFoundError, match="it serves version 1"):
        client.rank(1, [100], version=2)
    assert client.rank(1, [100], model="tiny", version=1).version == 1


def test_a_model_must_be_named_where_there_are_several(store: Path, tmp_path: Path) -> None:
    publish_tiny(store, tmp_path / "other", model="other", seed=1)
    with (
        start(ServerSettings(store=store, port=0)) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        with pytest.raises(ModelNotFoundError, match="several models, so name one; it serves other, tiny"):
            client.rank(1, [100])
        assert client.rank(1, [100], model="other").model == "other"
        assert [model.name for model in client.models()] == ["other", "tiny"]


def test_health_follows_the_server(store: Path) -> None:
    server = start(ServerSettings(store=store, port=0))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "moerank.v1.RankingService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        ending = threading.Thread(target=server.stop, kwargs={"drain_seconds": 0.3})
        ending.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        ending.join()


@pytest.mark.parametrize("reflection", [True, False])
def test_reflection_describes_the_service_if_it_is_on(store: Path, *, reflection: bool) -> None:
    with (
        start(ServerSettings(store=store, port=0, reflection=reflection)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        database = ProtoReflectionDescriptorDatabase(channel)
        if reflection:
            assert "moerank.v1.RankingService" in database.get_services()
        else:
            with pytest.raises(grpc.RpcError):
                database.get_services()


def test_reflection_answers_under_its_new_and_its_old_name(server: RunningServer) -> None:
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for version in ("v1", "v1alpha"):
            ask = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            (answer,) = ask(iter([question]), timeout=PATIENCE)
            assert "moerank.v1.RankingService" in {each.name for each in answer.list_services_response.service}


def test_a_corrupt_bundle_does_not_start(store: Path) -> None:
    (store / "tiny" / "1" / "model.onnx").write_bytes(b"")
    with pytest.raises(IntegrityError):
        start(ServerSettings(store=store, port=0))


def test_a_port_in_use_is_a_clear_error(server: RunningServer, store: Path) -> None:
    with pytest.raises(UnavailableError, match="choose one with --port"):
        start(ServerSettings(store=store, port=server.port))


def test_a_score_file_changes_the_score_without_a_restart(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text('{"tiny": {"weights": {"rating": 2.0}}}')
    settings = ServerSettings(store=store, port=0, score=file, poll_seconds=600)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        first = client.rank(1, [100, 101])
        np.testing.assert_allclose(first.scores, 2 * first.predictions["rating"])
        file.write_text('{"tiny": {"form": "product_of_powers", "weights": {"like": 0.5}}}')
        assert server.registry.refresh()
        second = client.rank(1, [100, 101])
        np.testing.assert_allclose(second.scores, second.predictions["like"] ** 0.5, rtol=1e-6)
        assert first.answer.score_version != second.answer.score_version
        file.write_text('{"tiny": {"weights": {"colour": 1}}}')
        assert not server.registry.refresh()
        assert client.rank(1, [100, 101]).answer.score_version == second.answer.score_version


def test_a_score_for_a_task_that_does_not_exist_does_not_start(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text('{"tiny": {"weights": {"colour": 1}}}')
    with pytest.raises(ConfigError, match="'colour', but the model predicts like, rating"):
        start(ServerSettings(store=store, port=0, score=file))
