"""The paired test of a new model against the version that is served, on the newest days, before it is published."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from contract.errors import MoerankError
from contract.schema import Schema
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.baselines import read_training
from pipeline.evaluation.comparing.paired_test import compare_predictions
from pipeline.evaluation.comparing.slice_differences import SliceDifference, compare_slices
from pipeline.evaluation.matching import common_rows, common_tasks, places_of_common_rows
from pipeline.evaluation.measure import PREDICTIONS_FILE
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.evaluation.predictions import Predictions, predict
from pipeline.evaluation.quality_gate import GateFinding
from pipeline.evaluation.row_slices import LabelledRows, slice_masks
from pipeline.evaluation.slice_tests import named_few
from pipeline.evaluation.slices import Masks
from pipeline.project.project_config import ProjectConfig
from pipeline.report.version_test import AgainstCurrent
from serving.graph.engine import Engine
from serving.store import bundle, local_store

_ALWAYS = ("user", "item", "day")
"""Slices that rows have without being asked for: new and known users and items, and days where there are several."""


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
        ours, theirs = common_tasks(*common_rows(new, _score(path, held_out, new, config)))
        differences, undefined = compare_predictions(theirs, ours, config.evaluate)
        chosen = places_of_common_rows(new, ours)
        masks = {
            name: {value: mask[chosen] for value, mask in values.items()}
            for name, values in _slices(config, held_out, new).items()
        }
        slices, untested = compare_slices(theirs, ours, masks, config.evaluate)
    except MoerankError as error:
        text = f"version {version} cannot be compared: {error}"
        return CurrentTest((GateFinding(rule=rule, passed=False, text=text),))
    headlines = {
        task: difference
        for task, scores in differences.items()
        for difference in scores.values()
        if difference.headline
    }
    first, last = (_moment(ms) for ms in (ours.time.min(), ours.time.max()))
    compared = AgainstCurrent(
        version=version,
        rows=ours.rows,
        first=first,
        last=last,
        tasks=headlines,
        differences=differences,
        slices=slices,
        untested=untested,
    )
    metrics = {task: next(m for m, d in differences[task].items() if d.headline) for task in headlines}
    findings = [_finding(compared, task, metrics[task], config) for task in headlines]
    findings += [
        GateFinding(
            rule=rule,
            # A task may have no positive label on these rows; if no task has a test, nothing has been compared.
            passed=bool(headlines),
            text=f"{task} cannot be compared with version {version}: {next(iter(undefined[task].values()))}",
        )
        for task in differences
        if task not in headlines
    ]
    return CurrentTest((*findings, *_slice_findings(compared, config)), compared)


def _slices(config: ProjectConfig, held_out: Path, new: Predictions) -> dict[str, Masks]:
    """The slices of the new model's rows, in their order, on which neither may be worse."""
    wanted = config.quality.slices
    if wanted == ():
        return {}
    named = config.evaluate.slice_by if wanted is None else tuple(name for name in wanted if name not in _ALWAYS)
    schema, training = Schema.load(held_out.parent), None
    if (held_out.parent / "train").exists():
        training = read_training(held_out.parent / "train", schema)
    rows = LabelledRows(held_out, str(held_out), config.data.events.time_zone)
    masks = slice_masks(new, rows, training, schema, held_out.parent, named)
    return {name: masks[name] for name in (*_ALWAYS, *named) if name in masks and (wanted is None or name in wanted)}


def _slice_findings(compared: AgainstCurrent, config: ProjectConfig) -> list[GateFinding]:
    """Each slice on which the new model is clearly worse; one finding that says so where there is none."""
    rule = "slices no worse than current"
    if not compared.slices:
        return []
    worse = [each for each in compared.slices if _is_worse(each, config.quality.no_worse_by)]
    count = len(compared.slices)
    if not worse:
        small = f"; too few users to tell: {named_few(compared.untested)}" if compared.untested else ""
        text = f"no slice is clearly worse than with version {compared.version} ({count} tests{small})"
        return [GateFinding(rule=rule, passed=True, text=text)]
    return [GateFinding(rule=rule, passed=False, text=_of_slice(each, compared.version, count)) for each in worse]


def _of_slice(worse: SliceDifference, version: int, tests: int) -> str:
    return (
        f"{worse.task} where {worse.slice} is {worse.value}: {worse.metric} {worse.b:.4f} is worse than {worse.a:.4f} "
        f"of version {version} ({worse.difference:+.4f} [{worse.low:+.4f}, {worse.high:+.4f}] on {worse.rows} rows; "
        f"the interval is widened for {tests} tests)"
    )


def _is_worse(difference: SliceDifference, allowed: float) -> bool:
    """Whether the whole interval is on the worse side of what is allowed."""
    if difference.metric == "rmse":
        return difference.low > allowed * difference.a
    return difference.high < -allowed


def _models(store: Path) -> list[str]:
    """The models that have a current version."""
    return [folder.parent.name for folder in store.glob("*/current")] if store.is_dir() else []


def _score(path: Path, held_out: Path, new: Predictions, config: ProjectConfig) -> Predictions:
    schema = bundle.load(path).schema
    engine = Engine(path, schema)
    if schema.fingerprint() == Schema.load(held_out.parent).fingerprint():
        return predict(engine, held_out, schema)
    # A day more on each side, whatever the log's time zone; only the same events are kept.
    bounds = [datetime.fromtimestamp(int(ms) / 1000, UTC).date() for ms in (new.time.min(), new.time.max())]
    recipe = FittedRecipe.load(path)
    days = RawDays.of(config.data, recipe.config, bounds[0] - timedelta(days=1), bounds[1] + timedelta(days=1))
    with encoded_days(recipe, days, lambda _: None) as encoded:
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
        f"({difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] on {difference.n} rows of "
        f"{compared.first} to {compared.last})"
    )
    return GateFinding(rule=f"{task} no worse than current", passed=bool(passed), text=text)


def _moment(ms: np.int64) -> str:
    return f"{datetime.fromtimestamp(int(ms) / 1000, UTC):%Y-%m-%d %H:%M}"
