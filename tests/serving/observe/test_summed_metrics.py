"""Pages of several processes as one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from serving.observe.summed_metrics import SummedMetrics


def page(calls: int, pending: int, version: int) -> str:
    registry = CollectorRegistry()
    Counter("calls", "Calls", ("model",), registry=registry).labels("tiny").inc(calls)
    Gauge("nv_inference_pending_request_count", "Waiting", registry=registry).set(pending)
    Gauge("moerank_model_version", "Version", ("model",), registry=registry).labels("tiny").set(version)
    seconds = Histogram("seconds", "Seconds", buckets=(1.0, 2.0), registry=registry)
    for _ in range(calls):
        seconds.observe(1.5)
    return generate_latest(registry).decode()


def values(sums: SummedMetrics, *pages: str) -> dict[str, float]:
    found = [sample for family in sums.families(pages) for sample in family.samples]
    return {sample.name + str(sample.labels.get("le", "")): sample.value for sample in found}


def test_counts_are_added_up_and_states_are_not() -> None:
    found = values(SummedMetrics(), page(3, 1, 7), page(4, 2, 7))
    assert found["calls_total"] == 7
    assert found["nv_inference_pending_request_count"] == 3
    assert found["moerank_model_version"] == 7
    assert (found["seconds_bucket1.0"], found["seconds_bucket2.0"], found["seconds_count"]) == (0, 7, 7)
    assert found["seconds_sum"] == 10.5


def test_no_count_falls_when_a_process_ends() -> None:
    sums = SummedMetrics()
    sums.retire(page(3, 1, 7))
    found = values(sums, page(4, 0, 8))
    assert (found["calls_total"], found["seconds_count"]) == (7, 7)
    assert (found["nv_inference_pending_request_count"], found["moerank_model_version"]) == (0, 8)
