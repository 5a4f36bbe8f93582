"""The log of served requests: what was served is in it, it never delays an answer, and it loses nothing silently."""

import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from contract.columns import FEATURE
from contract.dataset import EncodedWith
from features.online.request_encoder import RankRequest, RequestEncoder
from features.served.log_format import ENCODINGS_FOLDER, ServedEncoding, candidate_rows
from serving.client.attempts import CallOptions
from serving.client.blocking_client import Query, RankingClient
from serving.graph.context import Clock
from serving.graph.served_model import RankingModel
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.observe import request_log
from serving.observe.served_request import ServedRequest, table_of
from serving.stubs.inference import grpc_service_pb2 as pb
from serving.stubs.inference import grpc_service_pb2_grpc
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny


def ranked(folder: Path, items: list[int]) -> ServedRequest:
    model = RankingModel.open(publish_tiny(folder / "store", folder / "work"))
    request = RankRequest(3, items, {"tab": "home"}, {"activity": 0.5, "recent": [101] * len(items)})
    encoded = model.encode(request)
    return ServedRequest(model, request, encoded, model.answer(encoded, 0, Clock()), 1_764_000_000_000)


def read(folder: Path) -> Any:
    return candidate_rows(ds.dataset(folder, partitioning="hive").to_table()).to_pylist()


def test_what_was_served_is_logged_with_the_features_it_was_served_with(store: Path, tmp_path: Path) -> None:
    settings = ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=1.0)
    items = [105, 100, 7777]
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        own = {"activity": 0.5, "recent": [101, 102]}
        answer = client.rank(
            3, items, {"tab": "home"}, user_features=own, top_k=2, options=CallOptions(request_id="r-1")
        )
        client.batch_rank([Query(1, [100]), Query(2, [101, 102])])
    rows = read(tmp_path / "log")
    assert len(rows) == 6
    logged = [row for row in rows if row["request_id"] == "r-1"]
    assert [row["item"] for row in logged] == items
    assert {row["user"] for row in logged} == {3}
    assert {(row["model"], row["version"], row["arm"]) for row in logged} == {("tiny", 1, "current")}
    assert {row["context"] for row in logged} == {'{"tab": "home"}'}
    np.testing.assert_array_equal([row["score"] for row in logged], answer.scores)
    np.testing.assert_array_equal([row["prediction__like"] for row in logged], answer.predictions["like"])
    ranked = sorted((row for row in logged if row["position"] >= 0), key=lambda row: row["position"])
    assert [row["item"] for row in ranked] == answer.ranked
    encoder = RequestEncoder.open(store / "tiny" / "1")
    inputs = encoder.encode(RankRequest(3, items, {"tab": "home"}, own)).inputs
    for place, spec in enumerate(encoder.schema.candidate.ids):
        assert [row[FEATURE + spec.name] for row in logged] == inputs.candidate.ids[:, place].tolist()
    for place, dense in enumerate(encoder.schema.request.dense):
        assert [row[FEATURE + dense.name] for row in logged] == [inputs.request.dense[0, place]] * 3
    assert [row[FEATURE + "recent"] for row in logged] == [inputs.request.list_values.tolist()] * 3
    (file, *_) = (tmp_path / "log").glob("model=tiny/date=*/*/*.parquet")
    encoded_with = EncodedWith.read(pq.read_schema(file).metadata)
    assert encoded_with is not None
    assert encoded_with.schema_fingerprint == encoder.schema.fingerprint()
    beside = tmp_path / "log" / "model=tiny" / ENCODINGS_FOLDER / encoder.schema.fingerprint()
    assert ServedEncoding.load(beside).schema == encoder.schema


def test_rankings_by_raw_ids_over_the_open_inference_protocol_are_logged_without_places(
    store: Path, tmp_path: Path
) -> None:
    request = pb.ModelInferRequest(model_name="tiny")
    for name, values in {"user": [3], "items": [105, 100]}.items():
        request.inputs.add(name=name, datatype="INT64", shape=[len(values)]).contents.int64_contents.extend(values)
    with (
        start(ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=1.0)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = stub.ModelInfer(request, timeout=PATIENCE, metadata=(("x-request-id", "r-1"),))
    rows = read(tmp_path / "log")
    assert [(row["request_id"], row["user"], row["item"]) for row in rows] == [("r-1", 3, 105), ("r-1", 3, 100)]
    assert {(row["arm"], row["position"]) for row in rows} == {("current", -1)}
    likes = dict(zip((output.name for output in answer.outputs), answer.outputs, strict=True))["like"]
    assert [row["prediction__like"] for row in rows] == list(likes.contents.fp32_contents)


def test_a_share_of_the_requests_is_logged_by_their_id(store: Path, tmp_path: Path) -> None:
    settings = ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=0.3)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        for number in range(200):
            client.rank(1, [100], options=CallOptions(request_id=f"r-{number}"))
    assert 30 < len(read(tmp_path / "log")) < 90


def test_under_pressure_answers_are_dropped_from_the_log_and_counted(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WAITING", 2)
    monkeypatch.setattr(request_log, "TOGETHER", 1)
    go = threading.Event()
    whole = table_of

    def slow(served: Any) -> Any:
        go.wait(PATIENCE)
        return whole(served)

    monkeypatch.setattr(request_log, "table_of", slow)
    settings = ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=1.0)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        for _ in range(10):
            client.rank(1, [100])
        assert server.log is not None
        log = server.log
        assert log.counts["dropped"] >= 7
        go.set()
    assert log.counts["dropped"] + log.counts["written"] == 10
    assert len(read(tmp_path / "log")) == log.counts["written"]


def test_answers_beyond_the_memory_of_the_log_are_dropped(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WAITING_ROWS", 12)
    settings = ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=1.0, log_seconds=600)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        for _ in range(5):
            client.rank(1, [100, 101, 102, 103, 104])
        assert server.log is not None
        log = server.log
    assert log.counts == {"written": 2, "dropped": 3}
    assert len(read(tmp_path / "log")) == 10


def test_requests_become_one_table_as_they_would_one_by_one(tmp_path: Path) -> None:
    batch = [ranked(tmp_path / str(number), items) for number, items in enumerate([[100], [101, 102], [7777, 100]])]
    together, alone = table_of(batch), pa.concat_tables([table_of([each]) for each in batch])
    assert together.to_pylist() == alone.to_pylist()
    assert len(candidate_rows(together)) == 5


def test_a_target_that_takes_nothing_fails_no_request(store: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("in the way")
    settings = ServerSettings(store=store, port=0, log=tmp_path / "log", log_share=1.0)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        assert client.rank(1, [100]).version == 1
        assert server.log is not None
        log = server.log
    assert log.counts == {"failed": 1}


def test_a_url_takes_the_log_too(store: Path) -> None:
    settings = ServerSettings(store=store, port=0, log="memory://served/log", log_share=1.0)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        client.rank(1, [100, 101])
    import fsspec  # noqa: PLC0415 only here

    (file,) = fsspec.filesystem("memory").glob("/served/log/model=tiny/date=*/*/*.parquet")
    with fsspec.filesystem("memory").open(file) as content:
        assert pq.read_table(content)["item"].to_pylist() == [[100, 101]]
