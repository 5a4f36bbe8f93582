"""Cheaper ways to answer: a cascade refines the best, fewer experts answer under load, priors when time is short."""

import time
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest

from contract.columns import FEATURE
from features.online.request_encoder import RankRequest
from features.served.log_format import candidate_rows
from serving.api.degradation import Degradation, share_gone
from serving.api.rank_service import RankingService
from serving.client.client_request import build_request
from serving.graph.answer import RankAnswer
from serving.graph.context import CallContext, Clock
from serving.graph.fewer_experts import FewerExpertsEngine
from serving.graph.model_graphs import EngineOptions
from serving.graph.ordering import below
from serving.graph.served_model import RankingModel
from serving.graph.stages import FALLBACK_STAGE, FEWER_STAGE
from serving.observe.request_log import RequestLog
from serving.observe.telemetry import Telemetry
from serving.registry.registry import Registry
from serving.stubs.moerank.v1 import ranking_pb2
from tests.staged_bundle import ITEMS, publish_staged
from tests.tiny_bundle import publish_tiny

REQUEST = RankRequest(3, ITEMS.tolist(), {"tab": "home"})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return publish_staged(tmp_path / "store", tmp_path / "work")


def opened(bundle: Path, cascade: int | None) -> RankingModel:
    return RankingModel.open(bundle, EngineOptions(cascade=cascade))


@pytest.mark.parametrize("most", [0, len(ITEMS), len(ITEMS) + 5])
def test_a_cascade_to_as_many_as_there_are_is_the_whole_answer(bundle: Path, most: int) -> None:
    whole, cascade = opened(bundle, None).rank(REQUEST), opened(bundle, most).rank(REQUEST)
    for task, values in whole.predictions.items():
        np.testing.assert_array_equal(cascade.predictions[task], values)
    np.testing.assert_array_equal(cascade.scores, whole.scores)
    assert cascade.order.tolist() == whole.order.tolist()
    assert (cascade.stage, cascade.refined) == ("", 0)


def test_the_best_of_the_cheap_head_get_the_models_answers_and_stand_first(bundle: Path) -> None:
    model = opened(bundle, 6)
    whole, cascade = opened(bundle, 0).rank(REQUEST), model.rank(REQUEST)
    assert model.graphs.stages.cheap is not None
    cheap = model.graphs.stages.cheap.predict(model.encode(REQUEST).inputs)
    best = set(np.argsort(-model.score(cheap), kind="stable")[:6].tolist())
    assert set(cascade.order[:6].tolist()) == best
    for task, values in cascade.predictions.items():
        for place in range(len(ITEMS)):
            expected = whole.predictions[task][place] if place in best else cheap[task][place]
            assert values[place] == pytest.approx(expected, abs=1e-6)
    assert cascade.order.tolist() == np.argsort(-cascade.scores, kind="stable").tolist()
    assert (cascade.stage, cascade.refined) == ("cascade", 6)


def test_the_bundle_says_how_many_and_the_server_may_say_otherwise(tmp_path: Path) -> None:
    bundle = publish_staged(tmp_path / "store", tmp_path / "work", cascade=4)
    assert [opened(bundle, most).rank(REQUEST).refined for most in (None, 0, 9)] == [4, 0, 9]


def test_a_bundle_without_the_stages_that_are_asked_for_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = publish_tiny(tmp_path / "store", tmp_path / "work")
    RankingModel.open(plain, EngineOptions(cascade=0, fewer_experts=0))
    assert caplog.text == ""
    RankingModel.open(plain, EngineOptions(cascade=5, fewer_experts=1))
    for flag in ("--cascade", "--fewer-experts"):
        assert f"{flag} has no effect: {plain} holds no" in caplog.text


def test_those_that_were_not_refined_keep_their_order_below() -> None:
    scores = np.array([0.2, 5.0, 4.0, -1.0, 0.1], np.float32)
    moved = below(scores, np.array([0, 4]))
    assert np.argsort(-moved, kind="stable").tolist() == [0, 4, 1, 2, 3]
    assert moved[[0, 4]].tolist() == scores[[0, 4]].tolist()


def test_experts_are_told_for_the_candidates_that_took_some(bundle: Path) -> None:
    found = opened(bundle, 5).rank(REQUEST, experts=True)
    assert found.experts is not None
    assert {gate.weights.shape[0] for gate in found.experts.gates} == {len(ITEMS)}
    unrefined = np.setdiff1d(np.arange(len(ITEMS)), found.order[:5])
    assert all((gate.weights[unrefined] == 0).all() for gate in found.experts.gates)


def test_fewer_experts_answer_with_their_graph(bundle: Path) -> None:
    model = opened(bundle, None)
    encoded = model.encode(REQUEST)
    answer = model.answer(encoded, 0, Clock(), stage=FEWER_STAGE)
    expected = FewerExpertsEngine(bundle, model.bundle.schema, None, {}).predict(encoded.inputs)
    np.testing.assert_array_equal(answer.predictions["like"], expected["like"])
    assert answer.stage == "fewer experts"


def test_a_fallback_ranks_by_the_items_means(bundle: Path) -> None:
    answer = opened(bundle, None).fallback(RankRequest(3, [100, 119, 7777, 110]), 2)
    assert answer is not None
    assert answer.order.tolist() == [1, 3]
    assert answer.unknown_items.tolist() == [2]
    assert answer.predictions["like"][2] == pytest.approx(0.1)
    assert answer.stage == "fallback"


def call(gone: float, queued: float = 40.0) -> CallContext:
    """A call that waited so many seconds, which are that share of its deadline."""
    left = queued / gone - queued
    return CallContext("r", time.monotonic() + left, Clock(int(queued * 1e9)))


def test_the_longer_a_call_has_waited_the_less_of_the_model_it_gets() -> None:
    calm, busy = Degradation(lambda: 0.0), Degradation(lambda: 0.9)
    assert share_gone(call(0.3)) == pytest.approx(0.3, abs=0.02)
    assert [calm.stage(call(gone)) for gone in (0.1, 0.3, 0.6)] == ["", FEWER_STAGE, FALLBACK_STAGE]
    assert [busy.stage(call(gone)) for gone in (0.1, 0.6)] == [FEWER_STAGE, FALLBACK_STAGE]
    assert busy.stage(CallContext("r")) == FEWER_STAGE
    assert calm.stage(CallContext("r")) == ""


def test_the_service_answers_late_calls_by_stage_and_says_so(bundle: Path) -> None:
    telemetry = Telemetry()
    service = RankingService(Registry(bundle.parent.parent), telemetry, degradation=Degradation(lambda: 0.0))
    body = build_request(user=3, items=ITEMS.tolist()).SerializeToString()
    stages = [ranking_pb2.RankResponse.FromString(service.rank(body, call(gone))).stage for gone in (0.1, 0.3, 0.6)]
    assert stages == ["", FEWER_STAGE, FALLBACK_STAGE]
    (work,) = telemetry.work()
    assert work.stages == {FEWER_STAGE: 1, FALLBACK_STAGE: 1}
    batch = ranking_pb2.BatchRankRequest(requests=[build_request(user=3, items=[100, 101])] * 2)
    answers = ranking_pb2.BatchRankResponse.FromString(service.batch_rank(batch.SerializeToString(), call(0.7)))
    assert [answer.stage for answer in answers.responses] == [FALLBACK_STAGE] * 2


def test_fallbacks_are_logged_with_the_features_of_their_requests(bundle: Path, tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log", 1.0)
    service = RankingService(Registry(bundle.parent.parent), Telemetry(), log=log, degradation=Degradation(lambda: 0.0))
    bodies = [build_request(user=3, items=[100, 105], context={"tab": tab}).SerializeToString() for tab in ("home", 9)]
    for body in bodies:
        service.rank(body, call(0.6))
    log.close()
    rows = candidate_rows(ds.dataset(tmp_path / "log", partitioning="hive").to_table()).to_pylist()
    model = RankingModel.open(bundle)
    inputs = model.encode(RankRequest(3, [100, 105], {"tab": "home"})).inputs
    assert [(row["stage"], row["item"]) for row in rows] == [(FALLBACK_STAGE, 100), (FALLBACK_STAGE, 105)]
    for place, spec in enumerate(model.bundle.schema.candidate.ids):
        assert [row[FEATURE + spec.name] for row in rows] == inputs.candidate.ids[:, place].tolist()
    assert log.counts == {"written": 1, "failed": 1}


def test_under_load_a_row_keeps_as_many_experts_as_the_server_says(tmp_path: Path) -> None:
    bundle = publish_staged(tmp_path / "store", tmp_path / "work", least=2)
    encoded = opened(bundle, None).encode(REQUEST)

    def answer(wanted: int | None) -> RankAnswer:
        model = RankingModel.open(bundle, EngineOptions(fewer_experts=wanted))
        return model.answer(encoded, 0, Clock(), stage=FEWER_STAGE)

    least = answer(None).predictions["rating"]
    np.testing.assert_allclose(answer(4).predictions["rating"], 2 * least, rtol=1e-6)
    np.testing.assert_array_equal(answer(1).predictions["rating"], least)
    assert [answer(wanted).stage for wanted in (4, 0)] == [FEWER_STAGE, ""]


def test_without_degradation_late_calls_get_the_whole_model(bundle: Path) -> None:
    service = RankingService(Registry(bundle.parent.parent), Telemetry())
    body = build_request(user=3, items=[100, 101]).SerializeToString()
    assert ranking_pb2.RankResponse.FromString(service.rank(body, call(0.7))).stage == ""
