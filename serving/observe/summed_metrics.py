"""The metrics of several processes as one page: counts added up, states taken from whoever has the largest.

Counts of a process that has ended stay in the sum, so that no counter falls when a process is replaced.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

Key = tuple[str, tuple[tuple[str, str], ...]]
_ADDED = {
    "nv_inference_pending_request_count",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
}
"""Gauges that count something of each process."""
_COUNTED = {"counter", "histogram", "summary"}
_WORDS = {"process_start_time_seconds": min}


class SummedMetrics:
    """Adds up pages as processes tell them."""

    def __init__(self) -> None:
        self._ended: dict[Key, float] = {}

    def retire(self, page: str) -> None:
        """Keep the counts of the last page of a process that has ended."""
        for family in text_string_to_metric_families(page):
            if family.type in _COUNTED:
                for key, value in _samples(family):
                    self._ended[key] = self._ended.get(key, 0.0) + value

    def families(self, pages: Sequence[str]) -> Iterator[Metric]:
        """One metric family for each that any page has."""
        by_name: dict[str, list[Metric]] = {}
        for page in pages:
            for family in text_string_to_metric_families(page):
                by_name.setdefault(family.name, []).append(family)
        for same in by_name.values():
            yield self._joined(same)

    def _joined(self, same: Sequence[Metric]) -> Metric:
        first = same[0]
        counted = first.type in _COUNTED
        values: dict[Key, list[float]] = {}
        for family in same:
            for key, value in _samples(family):
                values.setdefault(key, []).append(value)
        joined = Metric(first.name, first.documentation, first.type)
        join = sum if counted or first.name in _ADDED else _WORDS.get(first.name, max)
        for key, each in values.items():
            ended = [self._ended[key]] if counted and key in self._ended else []
            joined.add_sample(key[0], dict(key[1]), join([*each, *ended]))
        return joined


def _samples(family: Metric) -> Iterable[tuple[Key, float]]:
    # When a series began differs by process and is not a count.
    kept = (sample for sample in family.samples if not sample.name.endswith("_created"))
    return (((sample.name, _labels(sample.labels)), sample.value) for sample in kept)


def _labels(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))
