"""What the server counts: by model and version, with distributions of a sample, and in copies that no longer change."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import RequestError
from contract.schema import TaskSpec
from features.online.request_encoder import RankRequest
from serving.graph.context import PHASES, Clock, Phase
from serving.graph.served_model import RankingModel
from serving.observe.telemetry import SAMPLE, SECONDS, Latencies, Telemetry, ValueDistribution


@pytest.fixture
def model(store: Path) -> RankingModel:
    return RankingModel.open(store / "tiny" / "1")


def laps(nanoseconds: int) -> dict[Phase, int]:
    return dict.fromkeys(PHASES, nanoseconds)


def test_values_are_counted_up_to_each_edge_and_beyond() -> None:
    task = TaskSpec(name="t", kind="regression", base_rate=10.0, spread=2.0)
    distribution = ValueDistribution.of(task)
    distribution.add(np.array([4.0, 10.0, 10.5, 99.0], np.float32))
    assert distribution.edges.tolist() == [4.0, 6.0, 8.0, 9.0, 10.0, 11.0, 12.0, 14.0, 16.0]
    assert distribution.counts.tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert distribution.total == 123.5


def test_a_time_of_exactly_an_edge_counts_below_it() -> None:
    latencies = Latencies()
    for seconds in (SECONDS[0], SECONDS[0] * 1.5, SECONDS[-1] * 2):
        latencies.add(int(seconds * 1e9))
    assert (latencies.counts[0], latencies.counts[1], latencies.counts[-1]) == (1, 1, 1)
    assert latencies.total_ns == int((2.5 * SECONDS[0] + 2 * SECONDS[-1]) * 1e9)


def test_an_answer_counts_rows_times_and_who_was_unknown(model: RankingModel) -> None:
    telemetry, answer = Telemetry(), model.rank(RankRequest(99, [100, 101, 7]), 0, Clock())
    telemetry.ranked(model, answer, laps(1_000_000))
    (work,) = telemetry.work()
    assert (work.model, work.version, work.successes, work.executions, work.rows) == ("tiny", 1, 1, 1, 3)
    assert (work.unknown_users, work.unknown_items) == (int(answer.unknown_user), len(answer.unknown_items))
    assert work.success_ns == work.latencies["total"].total_ns == len(PHASES) * 1_000_000
    assert work.phase_ns == laps(1_000_000)


def test_answers_that_shared_a_run_count_it_once(model: RankingModel) -> None:
    telemetry = Telemetry()
    for executions in (1, 0, 0):
        telemetry.succeeded(model, 2, laps(1), executions)
    (work,) = telemetry.work()
    assert (work.successes, work.executions, work.rows) == (3, 1, 6)


def test_the_distributions_hold_one_answer_in_so_many(model: RankingModel) -> None:
    telemetry, answer = Telemetry(), model.rank(RankRequest(1, [100, 101]), 0, Clock())
    for _ in range(SAMPLE + 1):
        telemetry.ranked(model, answer, laps(1))
    (work,) = telemetry.work()
    assert {task: int(each.counts.sum()) for task, each in work.distributions.items()} == dict.fromkeys(
        answer.predictions, 2 * 2
    )


def test_a_failure_counts_by_its_reason_and_goes_on(model: RankingModel) -> None:
    telemetry = Telemetry()
    for error in (RequestError("no", field="items"), ZeroDivisionError()):
        with pytest.raises(type(error)), telemetry.watching(model, Clock()):
            raise error
    (work,) = telemetry.work()
    assert work.failures == {"REQUEST_INVALID": 1, "DEFECT": 1}
    assert work.successes == 0


def test_a_call_that_came_to_no_model_is_counted_apart(model: RankingModel) -> None:
    telemetry = Telemetry()
    telemetry.refused("OVERLOADED")
    telemetry.succeeded(model, 1, laps(1))
    assert telemetry.refusals() == {"OVERLOADED": 1}
    assert [work.failures for work in telemetry.work()] == [{}]


def test_what_was_read_does_not_change_any_more(model: RankingModel) -> None:
    telemetry, answer = Telemetry(), model.rank(RankRequest(1, [100]), 0, Clock())
    telemetry.ranked(model, answer, laps(1))
    (before,) = telemetry.work()
    counts = {task: each.counts.tolist() for task, each in before.distributions.items()}
    for _ in range(2 * SAMPLE):
        telemetry.ranked(model, answer, laps(1))
    assert before.successes == 1
    assert {task: each.counts.tolist() for task, each in before.distributions.items()} == counts
    assert before.latencies["total"].total_ns == len(PHASES)
