"""Which experts an answer took: told to who asks, counted for a sample."""

import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import IntegrityError
from serving.client.blocking_client import Query, RankingClient
from serving.graph.answer import ExpertUse, GateUse
from serving.graph.engine import Engine
from serving.graph.expert_use import read_gates
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.observe.telemetry import SAMPLE
from tests.patience import PATIENCE
from tests.tiny_bundle import make_files

# Prices of these are -1, -0.5, 0 and 0.9.
ITEMS = [100, 105, 110, 119]
PRICES = np.array([-1.0, -0.5, 0.0, 0.9], np.float32)


def test_who_asks_is_told_the_weights_of_every_gate(client: RankingClient) -> None:
    told = client.rank(1, ITEMS, debug=True).experts
    assert told is not None
    first, second = told.gates
    assert (first.level, first.tasks, second.tasks) == (0, ("like",), ("rating",))
    np.testing.assert_allclose(first.weights, np.stack([PRICES.clip(0), (-PRICES).clip(0)], axis=1))
    np.testing.assert_array_equal(second.weights, [[0, 1]] * 4)
    np.testing.assert_array_equal(told.used(), [[False, True], [False, True], [False, True], [True, True]])
    assert told.union_over_n == pytest.approx(5 / 8)


def test_who_does_not_ask_is_not_told_and_gets_the_same_answer(client: RankingClient) -> None:
    plain, debug = client.batch_rank([Query(1, ITEMS), Query(1, ITEMS, debug=True)])
    assert plain.experts is None
    assert debug.experts is not None
    np.testing.assert_array_equal(plain.scores, debug.scores)


def test_the_load_of_the_experts_is_counted_for_a_sample(store: Path) -> None:
    settings = ServerSettings(store=store, port=0, metrics_port=0, poll_seconds=600)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        for _ in range(SAMPLE + 1):
            client.rank(1, ITEMS)
        assert server.metrics is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics.port}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    seen = {(s.name, s.labels.get("expert")): s.value for family in families for s in family.samples}
    # Two of the seventeen rankings belong to the sample.
    assert (seen["moerank_expert_rows_total", "0"], seen["moerank_expert_rows_total", "1"]) == (2 * 1, 2 * 4)
    assert seen["moerank_union_over_n_count", None] == 2 * 4
    assert seen["moerank_union_over_n_sum", None] / seen["moerank_union_over_n_count", None] == pytest.approx(5 / 8)


def test_levels_lie_side_by_side_and_gates_of_one_are_united() -> None:
    def gate(level: int, *weights: float) -> GateUse:
        return GateUse(level, ("like",), np.array([weights], np.float32))

    use = ExpertUse((gate(0, 0.0, 1.0), gate(0, 0.5, 0.0), gate(1, 0.0, 0.0, 2.0)))
    np.testing.assert_array_equal(use.used(), [[True, True, False, False, True]])
    assert ExpertUse().union_over_n == 0.0


def test_a_graph_that_does_not_tell_serves_all_the_same(tmp_path: Path) -> None:
    make_files(tmp_path / "bundle")
    path = tmp_path / "bundle" / "model.onnx"
    model = onnx.load(path)
    kept = [prop for prop in model.metadata_props if prop.key != "gates"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    del model.graph.output[2]
    onnx.save(model, path)
    assert Engine(path.parent).gates == ()


@pytest.mark.parametrize("text", ["no json", '[{"level": 0, "experts": 2, "tasks": []}]', '[{"level": -1}]'])
def test_a_graph_that_tells_of_what_it_does_not_answer_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="export the model again"):
        read_gates({"gates": text}, ["like"])
