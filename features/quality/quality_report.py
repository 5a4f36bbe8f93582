"""What a quality report holds."""

from typing import Literal

from contract.settings import Settings
from features.quality.histograms import Histogram


class Distribution(Settings):
    """Shares of bins between `edges`, or of `values`; the last share is of nulls, or of all other values."""

    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    shares: tuple[float, ...]


class FeatureProfile(Settings):
    """One feature over a sample of training rows; `psi` compares it with the last build in the same place.

    `bins`: how many components a piecewise-linear number was given; few mean that most rows share a few values.
    """

    kind: Literal["dense", "id", "id_list"]
    null_rate: float
    low: float | None = None
    high: float | None = None
    distinct: int | None = None
    bins: int | None = None
    distribution: Distribution
    histogram: Histogram | None = None
    """Of a number, to look at; `distribution` is by quantiles, for drift."""
    psi: float | None = None


class QualityReport(Settings):
    """A build: rows, rows that repeat another's keys and time, and rows older than the last build's end.

    `label_rates` are mean labels by task and day (UTC), `leaks` what single features tell of a task, and `unlearned`
    why training rows teach nothing of a task.
    """

    rows: int
    duplicates: int
    late: int
    cutoff_ms: int
    features: dict[str, FeatureProfile]
    label_rates: dict[str, dict[str, float]]
    leaks: tuple[dict[str, str | float], ...]
    unlearned: dict[str, str] = {}
