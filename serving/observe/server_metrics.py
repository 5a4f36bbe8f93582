"""Prometheus metrics, collected when they are scraped: Triton's names where it has one for the same thing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from contract import errors
from serving.graph.context import Phase
from serving.graph.pushed_features import PushCounts, PushedReader
from serving.graph.users import UserStore
from serving.observe.expected_predictions import validation_shares
from serving.observe.request_log import RequestLog
from serving.observe.telemetry import SECONDS, ModelWork, Telemetry, TracedTime, ValueDistribution
from serving.registry.registry import Registry
from serving.registry.shadow import ShadowComparison, Shadows

STATUSES = {
    leaf.reason: leaf.grpc_status
    for leaf in vars(errors).values()
    if isinstance(leaf, type) and issubclass(leaf, errors.MoerankError)
}
"""The gRPC status of each reason that callers see."""
LABELS = ("model", "version")
_DURATIONS: dict[Phase, str] = {
    "queue": "nv_inference_queue_duration_us",
    "input": "nv_inference_compute_input_duration_us",
    "infer": "nv_inference_compute_infer_duration_us",
    "output": "nv_inference_compute_output_duration_us",
}


class ServerCollector(Collector):
    """Turns the server's counts into metrics."""

    def __init__(
        self,
        telemetry: Telemetry,
        registry: Registry,
        pending: Callable[[], int],
        shadows: Shadows,
        users: UserStore | None = None,
        pushed: PushedReader | None = None,
        log: RequestLog | None = None,
    ) -> None:
        """Read from these at each scrape."""
        self._telemetry = telemetry
        self._registry = registry
        self._pending = pending
        self._shadows = shadows
        self._users = users
        self._pushed = pushed
        self._log = log

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        work = self._telemetry.work()
        yield from _counters(work)
        yield from _durations(work)
        yield _latencies(work)
        yield _distributions(work)
        yield from _experts(work)
        yield GaugeMetricFamily(
            "nv_inference_pending_request_count", "Calls that wait for a thread or run", value=self._pending()
        )
        text = "Calls that ended in an error, by what callers are told"
        ended = CounterMetricFamily("moerank_errors", text, labels=("reason", "status"))
        for reason, count in sorted(self._telemetry.refusals().items()):
            ended.add_metric((reason, STATUSES.get(reason, "INTERNAL")), count)
        yield ended
        yield from self._versions()
        yield from self._arms()
        yield from _comparisons(self._shadows.comparisons())
        if self._users is not None:
            yield _lookups(self._users)
        if self._pushed is not None:
            yield from _pushes(self._pushed.counts)
        if self._log is not None:
            logged = CounterMetricFamily("moerank_logged", "Answers of the log's share", labels=("outcome",))
            for outcome in ("written", "dropped", "failed"):
                logged.add_metric((outcome,), self._log.counts[outcome])
            yield logged

    def _versions(self) -> Iterator[Metric]:
        served = GaugeMetricFamily("moerank_model_version", "The version that answers", labels=("model",))
        for model in self._registry.models():
            served.add_metric((model.name,), model.version)
        yield served
        text = "When the version that answers was published"
        created = GaugeMetricFamily("moerank_model_created_timestamp_seconds", text, labels=LABELS)
        text = "Mean of a task's label over the training rows"
        rates = GaugeMetricFamily("moerank_task_base_rate", text, labels=(*LABELS, "task"))
        text = "Of the validation rows, the share whose prediction is at most `le`"
        expected = GaugeMetricFamily("moerank_prediction_expected_ratio", text, labels=(*LABELS, "task", "le"))
        for model in self._registry.models():
            key = (model.name, str(model.version))
            shares = validation_shares(model.bundle.manifest, model.bundle.schema)
            created.add_metric(key, datetime.fromisoformat(model.bundle.manifest.created).timestamp())
            for task in model.bundle.schema.tasks:
                rates.add_metric((*key, task.name), task.base_rate)
                bounds = bounds_of(ValueDistribution.of(task).edges)
                for bound, share in zip(bounds, shares.get(task.name, ()), strict=task.name in shares):
                    expected.add_metric((*key, task.name, bound), share)
        yield from (created, rates, expected)
        refused = GaugeMetricFamily(
            "moerank_model_refused", "1 while what the store has cannot be served; the log says why", labels=("model",)
        )
        names = {model.name: 0 for model in self._registry.models()} | dict.fromkeys(self._registry.refused(), 1)
        for name, is_refused in names.items():
            refused.add_metric((name,), is_refused)
        yield refused
        yield CounterMetricFamily("moerank_swaps", "Versions taken into service", value=self._registry.swaps)

    def _arms(self) -> Iterator[Metric]:
        text = "1 for each version that answers, by which arm of the traffic"
        answering = GaugeMetricFamily("moerank_arm", text, labels=(*LABELS, "arm"))
        for model in self._registry.models():
            answering.add_metric((model.name, str(model.version), "current"), 1)
        versions = GaugeMetricFamily("moerank_arm_version", "Versions beside the current one", labels=("model", "arm"))
        shares = GaugeMetricFamily("moerank_arm_share", "Their share of the request keys", labels=("model", "arm"))
        for key, arm in sorted(self._registry.arms.loaded().items()):
            versions.add_metric(key, arm.model.version)
            shares.add_metric(key, arm.share)
            answering.add_metric((key[0], str(arm.model.version), key[1]), 1)
        yield from (answering, versions, shares)


def _comparisons(comparisons: list[ShadowComparison]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ShadowComparison], int]], ...] = (
        ("moerank_shadow_compared", "Answers that a shadow was compared with", lambda c: c.compared),
        ("moerank_shadow_failed", "Requests that a shadow could not answer", lambda c: c.failed),
        ("moerank_shadow_dropped", "Answers not compared because too many waited", lambda c: c.dropped),
        ("moerank_shadow_first_changed", "Compared answers with another best candidate", lambda c: c.first_changed),
        ("moerank_shadow_rows", "Compared candidates", lambda c: c.rows),
    )
    for name, text, read in counters:
        family = CounterMetricFamily(name, text, labels=LABELS)
        for each in comparisons:
            family.add_metric((each.model, str(each.version)), read(each))
        yield family
    gaps = CounterMetricFamily(
        "moerank_shadow_difference", "Sum over candidates of |shadow - answer|", labels=(*LABELS, "task")
    )
    for each in comparisons:
        for task, total in sorted(each.difference.items()):
            gaps.add_metric((each.model, str(each.version), task), total)
    yield gaps


def _lookups(users: UserStore) -> Metric:
    family = CounterMetricFamily("moerank_user_store", "Users looked up in the user store", labels=("outcome",))
    for outcome, count in (("found", users.found), ("missed", users.missed), ("failed", users.failed)):
        family.add_metric((outcome,), count)
    return family


def _pushes(counts: PushCounts) -> Iterator[Metric]:
    family = CounterMetricFamily("moerank_pushed", "Pushed values that were read", labels=("outcome",))
    for outcome in ("used", "stale", "refused", "damaged"):
        family.add_metric((outcome,), counts.outcomes[outcome])
    yield family
    text = "Age of the pushed values that were used"
    yield SummaryMetricFamily("moerank_pushed_age_seconds", text, counts.outcomes["used"], counts.age_seconds)
    text = "When the newest pushed value that was read was true; 0 before the first"
    yield GaugeMetricFamily("moerank_pushed_newest_timestamp_seconds", text, counts.newest_ms / 1000)


def _counters(work: list[ModelWork]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ModelWork], int]], ...] = (
        ("nv_inference_request_success", "Answered requests", lambda w: w.successes),
        ("nv_inference_count", "Candidates answered", lambda w: w.rows),
        ("nv_inference_exec_count", "Runs of the model", lambda w: w.executions),
        ("moerank_unknown_users", "Rankings for users that the server does not know", lambda w: w.unknown_users),
        ("moerank_unknown_items", "Ranked candidates that the server does not know", lambda w: w.unknown_items),
    )
    for name, text, read in counters:
        family = CounterMetricFamily(name, text, labels=LABELS)
        for each in work:
            family.add_metric((each.model, str(each.version)), read(each))
        yield family
    failures = CounterMetricFamily("nv_inference_request_failure", "Failed requests", labels=(*LABELS, "reason"))
    for each in work:
        for reason, count in sorted(each.failures.items()):
            failures.add_metric((each.model, str(each.version), reason), count)
    yield failures
    yield from _by_feature(work)
    text = "Rankings that less than the whole model answered: cascade, fewer experts, fallback"
    staged = CounterMetricFamily("moerank_staged", text, labels=(*LABELS, "stage"))
    for each in work:
        for stage, count in sorted(each.stages.items()):
            staged.add_metric((each.model, str(each.version), stage), count)
    yield staged


def _by_feature(work: list[ModelWork]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ModelWork], Counter[str]]], ...] = (
        ("moerank_missing_context", "Rankings without a feature of the context", lambda w: w.missing_context),
        ("moerank_unseen_context", "Rankings with an id that training never saw", lambda w: w.unseen_context),
        ("moerank_clipped", "Given numbers beyond what training saw", lambda w: w.clipped),
    )
    for name, text, read in counters:
        family = CounterMetricFamily(name, text, labels=(*LABELS, "feature"))
        for each in work:
            for feature, count in sorted(read(each).items()):
                family.add_metric((each.model, str(each.version), feature), count)
        yield family


def _durations(work: list[ModelWork]) -> Iterator[Metric]:
    whole = CounterMetricFamily("nv_inference_request_duration_us", "Time of answered requests", labels=LABELS)
    for each in work:
        whole.add_metric((each.model, str(each.version)), each.success_ns / 1000)
    yield whole
    for phase, name in _DURATIONS.items():
        family = CounterMetricFamily(name, f"Time of answered requests in the phase: {phase}", labels=LABELS)
        for each in work:
            family.add_metric((each.model, str(each.version)), each.phase_ns[phase] / 1000)
        yield family


def _latencies(work: list[ModelWork]) -> Metric:
    family = HistogramMetricFamily(
        "moerank_latency_seconds", "Time of answered requests, by phase and in all", labels=(*LABELS, "phase")
    )
    bounds = bounds_of(SECONDS)
    for each in work:
        for phase, latency in each.latencies.items():
            counts = list(accumulate(latency.counts))
            buckets: list[Any] = [
                (bound, count, _exemplar(latency.exemplars[place])) if place in latency.exemplars else (bound, count)
                for place, (bound, count) in enumerate(zip(bounds, counts, strict=True))
            ]
            family.add_metric((each.model, str(each.version), phase), buckets, latency.total_ns * 1e-9)
    return family


def bounds_of(edges: Iterable[float]) -> list[str]:
    """The buckets of a histogram, spelled as every version of Prometheus keeps them."""
    return [*(repr(float(f"{edge:.6g}")) for edge in edges), "+Inf"]


def _exemplar(call: TracedTime) -> Exemplar:
    """How OpenMetrics names the trace; the other format leaves it out."""
    return Exemplar({"trace_id": call.trace}, call.seconds, call.at)


def _distributions(work: list[ModelWork]) -> Metric:
    family = HistogramMetricFamily(
        "moerank_prediction", "Predictions by task, of a sample of the rankings", labels=(*LABELS, "task")
    )
    for each in work:
        for task, distribution in each.distributions.items():
            buckets = list(zip(bounds_of(distribution.edges), distribution.counts.cumsum().tolist(), strict=True))
            family.add_metric((each.model, str(each.version), task), buckets, distribution.total)
    return family


def _experts(work: list[ModelWork]) -> Iterator[Metric]:
    load = CounterMetricFamily(
        "moerank_expert_rows",
        "Candidates that an expert was used for, of a sample of the rankings",
        labels=(*LABELS, "level", "expert"),
    )
    union = SummaryMetricFamily(
        "moerank_union_over_n", "Share of all experts that a candidate took, of the same sample", labels=LABELS
    )
    for each in work:
        if each.experts is None:
            continue
        key = (each.model, str(each.version))
        for number, (level, rows) in enumerate(zip(each.experts.levels, each.experts.rows_A.tolist(), strict=True)):
            load.add_metric((*key, str(level), str(number)), rows)
        union.add_metric(key, each.experts.rows, each.experts.rows_A.sum() / len(each.experts.levels))
    yield from (load, union)
