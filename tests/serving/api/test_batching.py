"""Requests of a batch share runs where the bundle has the packed graph, and are answered as if alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import PredictionError
from features.online.request_encoder import RankRequest
from serving.api.batching import ENOUGH_ROWS, PendingRequest, runs_of
from serving.client.blocking_client import RankingClient
from serving.client.client_response import Query
from serving.graph.served_model import RankingModel
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.store.bundle import publish
from tests.patience import PATIENCE
from tests.tiny_bundle import make_files, make_schema, publish_tiny, write_graph

QUERIES = [Query(user, [100 + user + place for place in range(user)], {"tab": "home"}) for user in range(1, 9)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work", packed=True)
    return tmp_path / "store"


@pytest.fixture
def server(store: Path) -> Iterator[RunningServer]:
    with start(ServerSettings(store=store, port=0)) as running:
        yield running


def test_a_batch_is_answered_as_its_requests_are_one_by_one(server: RunningServer) -> None:
    with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        alone = [client.rank(query.user, query.items, query.context) for query in QUERIES]
        before = server.telemetry.work()[0]
        together = client.batch_rank(QUERIES)
    after = server.telemetry.work()[0]
    for one, other in zip(alone, together, strict=True):
        assert one.ranked == other.ranked
        for task, values in one.predictions.items():
            np.testing.assert_allclose(other.predictions[task], values, atol=1e-6)
    assert (after.successes - before.successes, after.executions - before.executions) == (8, 1)
    assert after.rows - before.rows == sum(range(1, 9))


def test_who_asks_for_experts_has_a_run_of_their_own(server: RunningServer) -> None:
    with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        client.batch_rank(QUERIES)
        before = server.telemetry.work()[0].executions
        answers = client.batch_rank([*QUERIES, Query(1, [100], debug=True)])
    assert server.telemetry.work()[0].executions - before == 2
    assert answers[-1].experts is not None
    assert answers[0].experts is None


def test_one_request_in_sixteen_counts_its_experts_wherever_it_stands_in_a_batch(server: RunningServer) -> None:
    with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        client.rank(1, [100])
        client.batch_rank(QUERIES * 4)
    work = server.telemetry.work()[0]
    assert work.executions == 1 + 2 + 1, "alone, two of the batch alone, and the others together"
    assert work.experts is not None
    assert work.experts.rows == 1 + 2 * len(QUERIES[7].items)


def test_runs_are_of_one_model_and_end_when_they_have_enough_rows(store: Path, tmp_path: Path) -> None:
    publish_tiny(tmp_path / "plain", tmp_path / "other")
    packed, plain = (RankingModel.open(where / "tiny" / "1") for where in (store, tmp_path / "plain"))

    def asked(model: RankingModel, candidates: int) -> PendingRequest:
        request = RankRequest(1, [100] * candidates)
        return PendingRequest(model, None, request, model.encoder.encode(request), 0, experts=False)

    sizes = [(packed, 3), (plain, 3), (packed, ENOUGH_ROWS), (packed, 3), (plain, 3), (packed, 3)]
    assert sorted(runs_of([asked(*each) for each in sizes])) == [[0, 2], [1], [3, 5], [4]]


def test_a_packed_graph_that_answers_otherwise_is_not_served(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work", packed=True)
    write_graph(files["packed.onnx"], make_schema(), seed=1, packed=True)
    facts = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"], "git_revision": "abc"}
    bundle = publish(tmp_path / "store", "tiny", files, facts)
    with pytest.raises(PredictionError, match="golden request first"):
        RankingModel.open(bundle)
