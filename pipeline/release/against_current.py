"""The paired test of a new model against the version that is served, on the newest days, before it is published."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from contract.errors import MoerankError
from contract.schema import Schema
from contract.settings import Settings
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.compare import Difference, compare_predictions
from pipeline.evaluation.matching import common_rows
from pipeline.evaluation.measure import PREDICTIONS_FILE
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.evaluation.predictions import Predictions, predict
from pipeline.evaluation.quality_gate import GateFinding
from pipeline.project.project_config import ProjectConfig
from serving.graph.engine import Engine
from serving.store import bundle, local_store


class AgainstCurrent(Settings):
    """What was compared, on which rows, and what was found for each task."""

    version: int
    rows: int
    first: str
    last: str
    tasks: dict[str, Difference]


@dataclass(frozen=True)
class CurrentTest:
    """The findings for the gate, and what they rest on; nothing to rest on without a version to compare with."""

    findings: tuple[GateFinding, ...]
    compared: AgainstCurrent | None = None


def paired_with_current(config: ProjectConfig, evaluation_dir: Path, held_out: Path) -> CurrentTest:
    """Compare the predictions of an evaluation with those of the current version on the same events.

    The current version scores the held-out rows themselves where they are of its own features build, and otherwise
    the same raw days by its own recipe. Not being able to compare is a finding that does not pass.
    """
    rule = "no_worse_than: current"
    if config.name not in _models(config.store):
        return CurrentTest((GateFinding(rule=rule, passed=True, text="there is no version yet to compare with"),))
    version = local_store.current(config.store, config.name)
    path = config.store / config.name / str(version)
    try:
        new = load_predictions(evaluation_dir / PREDICTIONS_FILE)
        ours, theirs = common_rows(new, _score(path, held_out, new))
        differences, _ = compare_predictions(theirs, ours, config.evaluate)
    except MoerankError as error:
        text = f"version {version} cannot be compared: {error}"
        return CurrentTest((GateFinding(rule=rule, passed=False, text=text),))
    headlines = {
        task: difference for task, found in differences.items() for difference in found.values() if difference.headline
    }
    first, last = (_moment(ms) for ms in (ours.time.min(), ours.time.max()))
    compared = AgainstCurrent(version=version, rows=ours.rows, first=first, last=last, tasks=headlines)
    metrics = {task: next(m for m, d in differences[task].items() if d.headline) for task in headlines}
    return CurrentTest(tuple(_finding(compared, task, metrics[task], config) for task in headlines), compared)


def _models(store: Path) -> list[str]:
    """The models that have a current version."""
    return [folder.parent.name for folder in store.glob("*/current")] if store.is_dir() else []


def _score(path: Path, held_out: Path, new: Predictions) -> Predictions:
    schema = bundle.load(path).schema
    engine = Engine(path, schema)
    if schema.fingerprint() == Schema.load(held_out.parent).fingerprint():
        return predict(engine, held_out, schema)
    # A day more on each side, whatever the log's time zone; only the same events are kept.
    bounds = [datetime.fromtimestamp(int(ms) / 1000, UTC).date() for ms in (new.time.min(), new.time.max())]
    days = RawDays(first=bounds[0] - timedelta(days=1), last=bounds[1] + timedelta(days=1))
    with encoded_days(FittedRecipe.load(path), days, lambda _: None) as encoded:
        return predict(engine, encoded.dataset, schema)


def _finding(compared: AgainstCurrent, task: str, metric: str, config: ProjectConfig) -> GateFinding:
    """A task fails where the interval lies wholly on the worse side; with `certain` where it reaches there."""
    difference = compared.tasks[task]
    sign = -1.0 if metric == "rmse" else 1.0
    ends = sorted((sign * difference.low, sign * difference.high))
    allowed = -config.quality.no_worse_by * (difference.a if metric == "rmse" else 1.0)
    passed = (ends[0] if config.quality.certain else ends[1]) >= allowed
    verdict = "no worse than" if passed else "worse than"
    if not passed and config.quality.certain:
        verdict = "not certainly as good as"
    text = (
        f"{task}: {metric} {difference.b:.4f} is {verdict} {difference.a:.4f} of version {compared.version} "
        f"({difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] on {compared.rows} rows of "
        f"{compared.first} to {compared.last})"
    )
    return GateFinding(rule=f"{task} no worse than current", passed=bool(passed), text=text)


def _moment(ms: np.int64) -> str:
    return f"{datetime.fromtimestamp(int(ms) / 1000, UTC):%Y-%m-%d %H:%M}"
