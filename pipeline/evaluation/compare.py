"""Paired test of two models on the same rows: is the difference more than chance?"""

from pathlib import Path
from typing import Literal

import numpy as np

from contract.errors import ConfigError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.evaluate import EvaluateConfig
from pipeline.evaluation.intervals import LEVEL, Bootstrap, Statistic, interval
from pipeline.evaluation.metrics import Floats
from pipeline.evaluation.predictions import Predictions, align, predict
from pipeline.evaluation.result import EvaluationMethod, better
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.manifest import MANIFEST_FILE

COMPARISON_FILE = "comparison.json"


class Difference(Settings):
    """One metric of both models; `difference` is B minus A, with its interval and two-sided p-value.

    `better` names a model only where the interval leaves out 0 and the p-value, which counts the few draws that there
    are, agrees. Calibration is compared by its distance from 1.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    better: Literal["a", "b", "neither"]
    n: int


class PairedComparison(Settings):
    """Task -> metric -> difference, over the same rows and the same draws of users."""

    a: str
    b: str
    rows: int
    tasks: dict[str, dict[str, Difference]]
    method: EvaluationMethod

    def save(self, directory: Path) -> Path:
        """Write ``comparison.json`` in one step and return its path."""
        path = directory / COMPARISON_FILE
        write_text(self.model_dump_json(indent=1) + "\n", path)
        return path


def compare(
    a: Path, b: Path, data: Path | None = None, out_dir: Path | None = None, *, config: EvaluateConfig | None = None
) -> PairedComparison:
    """Compare two bundles or prediction files on the same rows.

    Args:
        a: A bundle, or a prediction file such as ``predictions.parquet`` of an evaluation (`Predictions.load` says
            which columns it needs).
        b: The other one.
        data: Encoded Parquet to score; needed where one of them is a bundle.
        out_dir: Gets ``comparison.json``; made if absent.
        config: Replicates and seed of the bootstrap.

    Raises:
        ConfigError: a bundle is given without data.
        DataError: the two are not about the same rows and tasks, or cannot be judged.
        IntegrityError: a bundle is damaged.
    """
    config = config or EvaluateConfig()
    first, second = align(_predictions(a, data, config), _predictions(b, data, config))
    users = first.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    tasks = {}
    for name, rows in first.by_task(users).items():
        pairs = list(zip(rows.statistics(), second.by_task(users)[name].statistics(), strict=True))
        tasks[name] = _differences(pairs, bootstrap, rows.labels.size)
    interval_text = "paired percentile bootstrap over users; p is twice the smaller share of draws on one side of 0"
    method = EvaluationMethod(interval=interval_text, level=LEVEL, replicates=config.replicates, seed=config.seed)
    result = PairedComparison(a=str(a), b=str(b), rows=first.rows, tasks=tasks, method=method)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        result.save(out_dir)
    return result


def _predictions(path: Path, data: Path | None, config: EvaluateConfig) -> Predictions:
    """Load a prediction file, or score the data with a bundle."""
    if not path.is_dir():
        return Predictions.load(path)
    if data is None:
        message = f"{path} is a bundle, so --data must name the encoded Parquet to score it on"
        raise ConfigError(message)
    if (path / MANIFEST_FILE).exists():
        bundle.load(path)
    engine = Engine(path, threads=config.threads)
    return predict(engine, data, engine.schema)


def _differences(pairs: list[tuple[Statistic, Statistic]], bootstrap: Bootstrap, rows: int) -> dict[str, Difference]:
    """Recompute both models on the same draws, and look at the differences."""
    draws = bootstrap.run([statistic for pair in pairs for statistic in pair])
    whole = np.ones(bootstrap.users)
    found = {}
    for index, (first, second) in enumerate(pairs):
        values = zip(first.names, first(whole), second(whole), draws[2 * index].T, draws[2 * index + 1].T, strict=True)
        for metric, a, b, draws_a, draws_b in values:
            if np.isfinite(a) and np.isfinite(b):
                found[metric] = _difference(metric, (float(a), float(b)), (draws_a, draws_b), rows)
    return found


def _difference(metric: str, whole: tuple[float, float], draws: tuple[Floats, Floats], rows: int) -> Difference:
    a, b = whole
    if metric == "calibration":
        # Its best value is 1, so what is tested is the distance from there.
        low, high, p = _paired(np.abs(draws[0] - 1.0), np.abs(draws[1] - 1.0))
        delta = abs(b - 1.0) - abs(a - 1.0)
    else:
        low, high, p = _paired(*draws)
        delta = b - a
    clear = p <= 1.0 - LEVEL and (low > 0.0 or high < 0.0)
    winner: Literal["a", "b", "neither"] = ("b" if better(metric, b, a) else "a") if clear else "neither"
    return Difference(a=a, b=b, difference=delta, low=low, high=high, p=p, better=winner, n=rows)


def _paired(first: Floats, second: Floats) -> tuple[float, float, float]:
    """Interval of second minus first over draws [R], and the two-sided p-value, never below 2 / (R + 1)."""
    delta = second - first
    delta = delta[np.isfinite(delta)]
    low, high = interval(delta)
    side = min(int(np.count_nonzero(delta <= 0.0)), int(np.count_nonzero(delta >= 0.0)))
    return low, high, min(1.0, 2.0 * (side + 1) / (delta.size + 1))
