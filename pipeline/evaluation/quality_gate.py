"""The quality gate: what a model must reach before it is published."""

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from contract.errors import ConfigError, QualityGateError
from contract.settings import Settings
from pipeline.evaluation.result import Evaluation, better, headline_metric
from pipeline.evaluation.task_metrics import Estimate

GATE_FILE = "gate.json"
Rule = Annotated[str, StringConstraints(pattern=r"^\s*[^\s.]+\.[a-z_@0-9]+\s*(>=|<=|>|<)\s*-?\d+(\.\d+)?\s*$")]
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class QualityConfig(Settings):
    """What a model must reach to be published."""

    rules: tuple[Rule, ...] = ()
    """Rules such as ``like.auc >= 0.75``."""
    beat: tuple[str, ...] = ()
    """Baselines that each task's AUC or RMSE must beat."""
    tasks: tuple[str, ...] = ()
    """The tasks to which `beat` applies; none: all whose rows define AUC or RMSE. A task that is named here or in a
    rule must have the metric."""
    certain: bool = False
    """Whether the unfavourable end of the 95 % interval must pass, and not only the value itself."""
    min_rows: int = Field(default=1, ge=1)
    """The fewest held-out rows of a task."""
    no_worse_than: Literal["current"] | None = None
    """``current``: a paired test on the held-out rows against the version that is served; a task that is clearly worse
    refuses, and with `certain` also one that may be."""
    no_worse_by: float = Field(default=0.0, ge=0)
    """How much worse than the current version is allowed: AUC absolutely, RMSE as a share."""
    slices: tuple[str, ...] | None = None
    """On which slices `no_worse_than` is tested, too, by intervals that hold for all of them together: null means those
    of `evaluate.slice_by`, `user` and `item` (new and known) and `day`; [] means none."""


class GateFinding(Settings):
    """One rule and what was found: `passed` and a sentence that says so."""

    rule: str
    passed: bool
    text: str


_FINDINGS = TypeAdapter(tuple[GateFinding, ...])


def examine(evaluation: Evaluation, config: QualityConfig) -> tuple[GateFinding, ...]:
    """Try every rule.

    Raises:
        ConfigError: a rule names a task, metric or baseline that the evaluation does not have.
    """
    enough = evaluation.rows >= config.min_rows
    rows = GateFinding(rule=f"rows >= {config.min_rows}", passed=enough, text=f"evaluated on {evaluation.rows} rows")
    rules = [_threshold(evaluation, rule, certain=config.certain) for rule in config.rules]
    beaten = [_beats(evaluation, task, name, config) for name in config.beat for task in _tasks(evaluation, config)]
    return (rows, *rules, *beaten)


def _tasks(evaluation: Evaluation, config: QualityConfig) -> tuple[str, ...]:
    """The tasks that must beat baselines: those named, or those that can be told, or, if none can, all."""
    defined = tuple(task for task, scores in evaluation.tasks.items() if headline_metric(scores))
    return config.tasks or defined or tuple(evaluation.tasks)


def enforce(
    evaluation: Evaluation, config: QualityConfig, more: Sequence[GateFinding] = ()
) -> tuple[GateFinding, ...]:  # fmt: skip
    """Let a model pass that satisfies every rule, and return the findings, `more` of which were made elsewhere.

    Raises:
        QualityGateError: at least one rule failed; the message lists each that did.
        ConfigError: a rule names something that the evaluation does not have.
    """
    findings = (*examine(evaluation, config), *more)
    failed = [finding.text for finding in findings if not finding.passed]
    if failed:
        message = f"{evaluation.model} was refused by the quality gate, nothing was published: {'; '.join(failed)}"
        raise QualityGateError(message)
    return findings


def gate_findings(evaluation_dir: Path) -> tuple[GateFinding, ...]:
    """What the gate found when it last judged this evaluation; empty if it has not."""
    try:
        return _FINDINGS.validate_json((evaluation_dir / GATE_FILE).read_bytes())
    except FileNotFoundError:
        return ()


def _estimate(evaluation: Evaluation, task: str, metric: str, where: str) -> Estimate | str:
    """The metric, or why these rows do not define it."""
    if task not in evaluation.tasks:
        message = f"quality rule {where!r}: no task {task!r}; there are {', '.join(evaluation.tasks)}"
        raise ConfigError(message)
    if metric in evaluation.undefined.get(task, {}):
        return f"{task}.{metric} is not defined because {evaluation.undefined[task][metric]}"
    if metric not in evaluation.tasks[task]:
        message = f"quality rule {where!r}: {task} has no {metric!r}; it has {', '.join(evaluation.tasks[task])}"
        raise ConfigError(message)
    return evaluation.tasks[task][metric]


def bound_clearly_missed(evaluation: Evaluation, rule: str) -> GateFinding:
    """A rule that fails only where the whole 95 % interval is beyond the bound, or nothing is defined.

    Raises:
        ConfigError: it names a task or metric that the evaluation does not have.
    """
    left, sign, right = _parts(rule)
    task, _, metric = left.partition(".")
    estimate = _estimate(evaluation, task, metric, rule)
    if isinstance(estimate, str):
        return GateFinding(rule=rule, passed=False, text=f"{estimate}, but {sign} {right:g} is asked for")
    best = estimate.high if sign.startswith(">") else estimate.low
    passed = _COMPARE[sign](best, right)
    value = f"{left} is {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
    holds = _COMPARE[sign](estimate.value, right)
    relation = "as" if holds else "which is not clearly off, where" if passed else "but"
    return GateFinding(rule=rule, passed=passed, text=f"{value}, {relation} {sign} {right:g} is asked for")


def _parts(rule: str) -> tuple[str, str, float]:
    """``task.metric``, the sign and the bound of a rule."""
    sign = next(sign for sign in _COMPARE if sign in rule)
    left, right = (part.strip() for part in rule.split(sign))
    return left, sign, float(right)


def _threshold(evaluation: Evaluation, rule: str, *, certain: bool) -> GateFinding:
    left, sign, right = _parts(rule)
    task, _, metric = left.partition(".")
    estimate = _estimate(evaluation, task, metric, rule)
    if isinstance(estimate, str):
        return GateFinding(rule=rule, passed=False, text=f"{estimate}, but {sign} {right:g} is asked for")
    worst = estimate.low if sign.startswith(">") else estimate.high
    value = worst if certain else estimate.value
    passed = _COMPARE[sign](value, right)
    end = " at the unfavourable end of its interval" if certain else ""
    text = f"{left} is {value:.4f}{end}, {'as' if passed else 'but'} {sign} {right:g} is asked for"
    return GateFinding(rule=rule, passed=passed, text=text)


def _beats(evaluation: Evaluation, task: str, baseline: str, config: QualityConfig) -> GateFinding:
    rule = f"{task} beats {baseline}"
    if baseline not in evaluation.baselines:
        message = f"quality rule {rule!r}: no such baseline; there are {', '.join(evaluation.baselines)}"
        raise ConfigError(message)
    if task not in evaluation.tasks:
        _estimate(evaluation, task, "", rule)
    metric = headline_metric(evaluation.tasks[task])
    if metric is None or metric not in evaluation.baselines[baseline][task]:
        text = f"{task}: {evaluation.why_no_headline(task)}, so it cannot be held against {baseline}"
        return GateFinding(rule=rule, passed=False, text=text)
    mine, theirs = evaluation.tasks[task][metric], evaluation.baselines[baseline][task][metric]
    worst = mine.high if better(metric, mine.low, mine.high) else mine.low
    value = worst if config.certain else mine.value
    passed = better(metric, value, theirs.value)
    verb = "beats" if passed else "does not beat"
    text = f"{task}: {metric} {value:.4f} {verb} {theirs.value:.4f} of {baseline}"
    return GateFinding(rule=rule, passed=passed, text=text)
