"""A server orders by named formulas and explores, says so in each answer, and logs it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from contract.errors import ConfigError, RequestError
from serving.client.attempts import CallOptions
from serving.client.blocking_client import Query, RankingClient
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.registry.registry import Registry
from tests.patience import PATIENCE

ITEMS = list(range(100, 112))
FORMULAS = {"like": {"weights": {"like": 1.0}}, "rating": {"weights": {"rating": -1.0}}}


def settings(store: Path, policy: dict[str, Any], **changes: Any) -> ServerSettings:
    file = store.parent / "policy.json"
    file.write_text(json.dumps({"tiny": {"formulas": FORMULAS, "default": "like", **policy}}), encoding="utf-8")
    return ServerSettings(store=store, port=0, score=file, **changes)


def test_formulas_are_chosen_by_surface_or_by_the_request(store: Path) -> None:
    with (
        start(settings(store, {"by": {"tab": {"search": "rating"}}})) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        answers = [client.rank(1, ITEMS, {"tab": tab}, score=score).answer
                   for tab, score in (("home", ""), ("search", ""), ("search", "like"))]  # fmt: skip
        assert [answer.score_name for answer in answers] == ["like", "rating", "like"]
        assert answers[0].score_version == answers[2].score_version != answers[1].score_version
        np.testing.assert_allclose(answers[1].scores, -answers[1].predictions["rating"], rtol=1e-6)
        with pytest.raises(RequestError, match="allowed are: like, rating"):
            client.rank(1, ITEMS, score="nonsense")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no feature": ({"by": {"tabs": {"home": "like"}}}, r"chosen by 'tabs', .* allowed are: tab$"),
    "no such share": ({"explore": {"method": "epsilon", "epsilon": 2}}, "several formulas.explore.epsilon.epsilon: "),
    "no formula": ({"default": "likes"}, "no formula likes; there are like, rating"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_that_means_nothing_is_refused_by_its_key_alone(store: Path, case: str) -> None:
    policy, words = WRONG[case]
    with pytest.raises(ConfigError, match=words) as refused:
        start(settings(store, policy))
    assert "Extra inputs" not in str(refused.value)


def test_a_wrong_policy_changes_nothing_while_serving_and_is_counted_until_it_is_right(store: Path) -> None:
    settings(store, {})
    file = store.parent / "policy.json"
    right = file.read_text()
    registry = Registry(store, score_file=file)
    file.write_text("{")
    assert not registry.refresh()
    assert registry.refused() == ["the score file"]
    file.write_text(right)
    registry.refresh()
    assert registry.refused() == []


def test_an_explored_ranking_tells_its_propensities_and_greedy_callers_get_none(store: Path) -> None:
    explore = {"method": "epsilon", "epsilon": 0.5, "depth": 3}
    with (
        start(settings(store, {"explore": explore})) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        greedy = client.rank(1, ITEMS, greedy=True)
        assert (greedy.propensities, greedy.answer.exploration) == (None, "")
        firsts: Counter[int] = Counter()
        for number in range(60):
            found = client.rank(1, ITEMS, top_k=5, options=CallOptions(request_id=f"r-{number}"))
            again = client.rank(1, ITEMS, top_k=5, options=CallOptions(request_id=f"r-{number}"))
            assert found.ranked == again.ranked
            assert found.propensities is not None
            assert len(found.propensities) == 5
            best = found.ranked[0] == greedy.ranked[0]
            assert found.propensities[0] == pytest.approx(0.5 * best + 0.5 / len(ITEMS))
            assert found.propensities[3:].tolist() == [1, 1]
            firsts[int(found.ranked[0])] += 1
        assert 20 < firsts[int(greedy.ranked[0])] < 50
        assert len(firsts) > 3


def test_the_log_has_each_candidates_propensity_and_what_drew_it(store: Path, tmp_path: Path) -> None:
    explore = {"method": "plackett_luce", "temperature": 0.3}
    log = tmp_path / "log"
    with (
        start(settings(store, {"explore": explore}, log=log, log_share=1.0)) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        answer = client.rank(1, ITEMS, top_k=4).answer
    (row,) = ds.dataset(log, partitioning="hive").to_table().to_pylist()
    assert (row["score_name"], row["exploration"]) == ("like", "plackett_luce depth=0 temperature=0.3")
    assert answer.propensities is not None
    assert [row["propensity"][place] for place in answer.order] == answer.propensities.tolist()
    assert sum(each is None for each in row["propensity"]) == len(ITEMS) - 4


def test_requests_of_a_batch_explore_each_on_its_own_under_ids_of_their_own(store: Path) -> None:
    explore = {"method": "plackett_luce", "temperature": 5.0}
    with (
        start(settings(store, {"explore": explore})) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
    ):
        found = client.batch_rank([Query(1, ITEMS)] * 4, options=CallOptions(request_id="b"))
    assert [each.request_id for each in found] == ["b/0", "b/1", "b/2", "b/3"]
    assert len({tuple(each.ranked) for each in found}) > 1
