"""Paired test of two models on the same rows: is the difference more than chance?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import ndtri

from contract.dataset import EncodedDataset
from contract.errors import ConfigError
from contract.files import write_text
from contract.settings import Settings
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.alignment import align, require_build
from pipeline.evaluation.calibration_error import CalibrationError
from pipeline.evaluation.intervals import LEVEL, Bootstrap, Statistic, around, interval, standard_error
from pipeline.evaluation.list_keys import by_lists
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.multiple_tests import holm, smallest_shown, two_sided, weights_of
from pipeline.evaluation.prediction_file import Columns, load_predictions
from pipeline.evaluation.predictions import Predictions, joined, predict_stretches
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.result import EvaluationMethod
from pipeline.evaluation.task_metrics import HEADLINE, LOWER_IS_BETTER, task_statistics
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.manifest import MANIFEST_FILE

COMPARISON_FILE = "comparison.json"
_METHOD = (
    "paired bootstrap over users: intervals and p by Student's t from the draws' standard deviation; p_adjusted by "
    "Holm over all tasks and metrics, each task's AUC or RMSE named beforehand and given four fifths of the level "
    "together"
)


class Difference(Settings):
    """One metric of both models; `difference` is B minus A, with its 95 % interval and two-sided p-value.

    `better` names a model where `p_adjusted` is at most 0.05: over all tasks and metrics of a comparison, equal models
    are told apart in at most one of twenty. `smallest` is the difference that these rows would show in four of five
    such comparisons. Calibration is compared by its distance from 1.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    better: Literal["a", "b", "neither"]
    n: int
    p_adjusted: float
    smallest: float
    headline: bool

    def verdict(self) -> str:
        """Which model is better, or what difference these rows could have shown."""
        if self.better != "neither":
            return f"{self.better.upper()} is better"
        if self.smallest == 0.0:
            return "no clear difference: both have the same value in every draw"
        return f"no clear difference; the smallest that these rows could have shown is {self.smallest:.4f}"


class PairedComparison(Settings):
    """Task -> metric -> difference, over the same rows and the same draws of users.

    `undefined` says by task and metric why these rows do not define it.
    """

    a: str
    b: str
    rows: int
    tasks: dict[str, dict[str, Difference]]
    method: EvaluationMethod
    undefined: dict[str, dict[str, str]] = {}

    def save(self, directory: Path) -> Path:
        """Write ``comparison.json`` in one step and return its path."""
        path = directory / COMPARISON_FILE
        write_text(self.model_dump_json(indent=1) + "\n", path)
        return path

    def lines(self) -> list[str]:
        """For a person: each difference with its interval and verdict, the headline of each task first."""
        lines = [f"A: {self.a}", f"B: {self.b}", f"{self.rows} rows; B minus A with 95 % interval"]
        for task, metrics in self.tasks.items():
            for metric, found in sorted(metrics.items(), key=lambda pair: not pair[1].headline):
                lines.append(
                    f"{'*' if found.headline else ' '} {task:<16} {metric:<12} A {found.a:.4f}  B {found.b:.4f}  "
                    f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]  p {found.p_adjusted:.3f}  "
                    f"{found.verdict()}"
                )
            reasons: dict[str, list[str]] = {}
            for metric, why in self.undefined.get(task, {}).items():
                reasons.setdefault(why, []).append(metric)
            lines += [f"  {task:<16} {', '.join(names)}: not defined because {why}" for why, names in reasons.items()]
        lines.append("* named beforehand; p is adjusted for all tasks and metrics (Holm)")
        return lines


def compare(
    a: Path,
    b: Path,
    data: Path | None = None,
    out_dir: Path | None = None,
    *,
    config: EvaluateConfig | None = None,
    columns: Columns | None = None,
    days: RawDays | None = None,
) -> PairedComparison:
    """Compare two bundles or prediction files on the same rows.

    Args:
        a: A bundle, or a prediction file such as ``predictions.parquet`` of an evaluation (`load_predictions` says
            which columns it needs).
        b: The other one.
        data: Encoded Parquet to score; it must be of the bundle's own features build.
        out_dir: Gets ``comparison.json``; made if absent.
        config: Replicates and seed of the bootstrap.
        columns: What the columns of prediction files are called.
        days: Raw rows instead of `data`; each bundle encodes them by its own recipe, so bundles of different builds
            can be compared.

    Raises:
        ConfigError: a bundle is given without data.
        DataError: the two are not about the same rows and tasks, or cannot be judged.
        IntegrityError: a bundle is damaged.
        SchemaMismatchError: `data` was encoded for another bundle.
    """
    config = config or EvaluateConfig()
    source = _Source(data, days, columns, config)
    first, second = align(source.predictions(a), source.predictions(b))
    tasks, undefined = compare_predictions(first, second, config)
    method = EvaluationMethod(interval=_METHOD, level=LEVEL, replicates=config.replicates, seed=config.seed)
    result = PairedComparison(a=str(a), b=str(b), rows=first.rows, tasks=tasks, method=method, undefined=undefined)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        result.save(out_dir)
    return result


@dataclass(frozen=True)
class _Source:
    """The rows to score, and how."""

    data: Path | None
    days: RawDays | None
    columns: Columns | None
    config: EvaluateConfig

    def predictions(self, path: Path) -> Predictions:
        """Load a prediction file, or score the rows with a bundle."""
        if not path.is_dir():
            return self._loaded(path)
        if (path / MANIFEST_FILE).exists():
            bundle.load(path)
        engine = Engine(path, threads=self.config.threads)
        if self.days is not None:
            with encoded_days(FittedRecipe.load(path), self.days, lambda _: None) as encoded:
                return self._scored(engine, encoded.dataset)
        if self.data is None:
            message = (
                f"{path} is a bundle, so --data must name the encoded Parquet to score it on, or --events raw rows"
            )
            raise ConfigError(message)
        return self._scored(engine, self.data)

    def _scored(self, engine: Engine, data: Path) -> Predictions:
        return joined(list(by_lists(predict_stretches(engine, data, engine.schema), self.config.lists_by, data)))

    def _loaded(self, path: Path) -> Predictions:
        """A prediction file; beside encoded rows it must be of the features build that encoded them."""
        rows = load_predictions(path, self.columns)
        encoded_with = None if self.data is None else EncodedDataset.open(self.data).encoded_with
        if encoded_with is not None:
            require_build(rows, encoded_with.schema_fingerprint, str(path), str(self.data))
        return rows


def compare_predictions(
    first: Predictions, second: Predictions, config: EvaluateConfig, *, headline_only: bool = False
) -> tuple[dict[str, dict[str, Difference]], dict[str, dict[str, str]]]:
    """Differences of aligned predictions by task and metric, and why others are not defined.

    `headline_only` leaves out what is not computed together with a task's AUC or RMSE.

    Raises:
        DataError: values that are not finite, or not those of their kind of task.
    """
    users = first.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    others = second.by_task(users)
    measured: dict[tuple[str, str], _Measured] = {}
    undefined = {}
    for name, rows in first.by_task(users).items():
        one, two = task_statistics(rows, config.at), task_statistics(others[name], config.at)
        if one.undefined:
            undefined[name] = one.undefined
        pairs = [
            pair
            for pair in zip(one.statistics, two.statistics, strict=True)
            if not headline_only or HEADLINE[rows.kind] in pair[0].names
        ]
        metrics = _measure(pairs, bootstrap, rows.labels.size)
        measured |= {(name, metric): each for metric, each in metrics.items()}
    tasks: dict[str, dict[str, Difference]] = {name: {} for name in first.tasks}
    for (name, metric), difference in _judged(measured, first.tasks, users.count).items():
        tasks[name][metric] = difference
    return tasks, undefined


@dataclass(frozen=True)
class _Measured:
    """Both values, their difference, its draws' standard deviation and interval, before any test."""

    a: float
    b: float
    difference: float
    error: float
    low: float
    high: float
    rows: int


def _measure(pairs: list[tuple[Statistic, Statistic]], bootstrap: Bootstrap, rows: int) -> dict[str, _Measured]:
    """Recompute both models on the same draws, and look at the differences."""
    draws = bootstrap.run([statistic for pair in pairs for statistic in pair])
    whole = np.ones(bootstrap.users)
    found = {}
    for index, (first, second) in enumerate(pairs):
        values = zip(first.names, first(whole), second(whole), draws[2 * index].T, draws[2 * index + 1].T, strict=True)
        for metric, a, b, draws_a, draws_b in values:
            if np.isfinite(a) and np.isfinite(b):
                found[metric] = _difference(metric, (float(a), float(b)), (draws_a, draws_b), rows, bootstrap.users)
        if isinstance(first, CalibrationError) and isinstance(second, CalibrationError):
            ends = (first.estimate(), second.estimate())
            found["ece"] = _errors_of_calibration(found["ece"], ends, draws[2 * index], draws[2 * index + 1])
    return found


def _errors_of_calibration(
    plain: _Measured, estimates: tuple[tuple[float, float, float], ...], draws_a: Floats, draws_b: Floats
) -> _Measured:
    """The difference of two errors without bias, its interval from both intervals and how alike the draws are.

    Noise alone moves the plain form up, the more the better a model is calibrated, and so hides differences.

    Source: Zou 2007, "Toward Using Confidence Intervals to Compare Correlations", section 2 (dependent estimates).
    """
    (a, low_a, high_a), (b, low_b, high_b) = estimates
    if plain.error == 0.0:
        return replace(plain, a=a, b=b)
    # Draws that all have one value go with nothing.
    varies = min(float(np.std(each[:, 0])) for each in (draws_a, draws_b)) > 0.0
    alike = float(np.corrcoef(draws_a[:, 0], draws_b[:, 0])[0, 1]) if varies else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one * one + other * other - 2.0 * alike * one * other, 0.0)))

    low, high = b - a - reach(b - low_b, high_a - a), b - a + reach(high_b - b, a - low_a)
    error = (high - low) / (2.0 * float(ndtri((1.0 + LEVEL) / 2.0)))
    return replace(plain, a=a, b=b, difference=b - a, error=error, low=low, high=high)


def _difference(
    metric: str, whole: tuple[float, float], draws: tuple[Floats, Floats], rows: int, users: int
) -> _Measured:
    values = [np.append(value, each) for value, each in zip(whole, draws, strict=True)]
    if metric == "calibration":
        # Its best value is 1, so what is tested is the distance from there.
        values = [np.abs(each - 1.0) for each in values]
    difference, deltas = float(values[1][0] - values[0][0]), values[1][1:] - values[0][1:]
    deltas = deltas[np.isfinite(deltas)]
    error = standard_error(deltas, users)
    # The distance from 1 has a corner, around which its differences are not normal.
    low, high = interval(deltas, users) if metric == "calibration" else around(difference, error, users)
    return _Measured(*whole, difference=difference, error=error, low=low, high=high, rows=rows)


def _judged(
    measured: dict[tuple[str, str], _Measured], kinds: Mapping[str, str], users: int
) -> dict[tuple[str, str], Difference]:
    """Test all differences together."""
    headline = [metric == HEADLINE[kinds[task]] for task, metric in measured]
    weights = weights_of(headline)
    p = np.array([two_sided(each.difference, each.error, users) for each in measured.values()])
    found = {}
    for place, (adjusted, (key, each)) in enumerate(zip(holm(p, weights), measured.items(), strict=True)):
        winner: Literal["a", "b", "neither"] = "neither"
        if adjusted <= 1.0 - LEVEL and each.difference != 0.0:
            winner = "b" if _b_is_better(key[1], each.difference) else "a"
        found[key] = Difference(
            a=each.a,
            b=each.b,
            difference=each.difference,
            low=each.low,
            high=each.high,
            p=float(p[place]),
            better=winner,
            n=each.rows,
            p_adjusted=float(adjusted),
            smallest=smallest_shown(each.error, (1.0 - LEVEL) * float(weights[place])),
            headline=headline[place],
        )
    return found


def _b_is_better(metric: str, difference: float) -> bool:
    return (difference < 0.0) == (metric in LOWER_IS_BETTER or metric == "calibration")
