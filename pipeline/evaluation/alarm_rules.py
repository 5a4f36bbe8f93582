"""When a judged day is an alarm: a bound that is clearly missed, or a clear drop below the days before it.

A drop is held against how far the days before differed among each other, by Student's t for one more day like them;
that holds both chances: which users came, and what else differs from day to day. Where the days before happened to
differ less than their users explain, by the bootstrap over users, that is taken instead.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field
from scipy.special import stdtr

from contract.settings import Settings
from pipeline.evaluation.multiple_tests import holm
from pipeline.evaluation.quality_gate import GateFinding, Rule, bound_clearly_missed
from pipeline.evaluation.result import Evaluation, TaskScores, better, headline_metric
from pipeline.evaluation.task_metrics import Estimate

LEAST_DAYS = 3
"""With fewer days before, their spread is unknown."""
_HALF_WIDTH = 1.96
"""Standard errors in half a 95 % interval."""


class MonitorConfig(Settings):
    """What is asked of each day of a published model, by `moerank monitor` and `moerank schedule-evaluation`."""

    rules: tuple[Rule, ...] = ()
    """Bounds such as ``like.auc >= 0.75``; an alarm where the whole 95 % interval is beyond the bound."""
    drop: bool = True
    """Whether a task's AUC or RMSE that is clearly worse than on the days before is an alarm."""
    window: int = Field(default=14, ge=LEAST_DAYS)
    """How many of the days before are compared with."""
    drop_by: float = Field(default=0.0, ge=0)
    """How much worse than the days before is allowed: AUC absolutely, RMSE as a share."""
    level: float = Field(default=0.01, gt=0, lt=0.5)
    """The chance of a false alarm a day by drops, over all tasks."""
    days: int = Field(default=30, ge=1)
    """How many days the page over days shows."""
    served: str | None = None
    """A log of served requests (`moerank serve --log`), or Parquet with columns of user, item, time and version, that
    says which version served each row; without it, the version that the store's pointer named at the time."""


class DayDrop(Settings):
    """A task's headline metric on a day and its mean over `days` days before, with the one-sided p-value of a drop.

    `difference` is the day minus the mean, `error` its standard error, `spread` how much days differ beyond what the
    choice of users explains (a standard deviation).
    """

    task: str
    metric: str
    value: float
    before: float
    difference: float
    error: float
    spread: float
    days: int
    p: float
    p_adjusted: float


def drops(today: TaskScores, before: Sequence[TaskScores], config: MonitorConfig) -> tuple[DayDrop, ...]:
    """Test each task of a day against the days before, the latest first; p-values adjusted over the tasks (Holm)."""
    day_drops = []
    for task, scores in today.items():
        metric = headline_metric(scores)
        if metric is None:
            continue
        earlier = [day[task][metric] for day in before if metric in day.get(task, {})][: config.window]
        if len(earlier) >= LEAST_DAYS:
            day_drops.append(_drop(task, metric, scores[metric], earlier, config))
    adjusted = holm(np.array([each.p for each in day_drops]), np.ones(len(day_drops))) if day_drops else np.empty(0)
    return tuple(
        each.model_copy(update={"p_adjusted": float(p)}) for each, p in zip(day_drops, adjusted, strict=True)
    )  # fmt: skip


def _drop(task: str, metric: str, today: Estimate, before: Sequence[Estimate], config: MonitorConfig) -> DayDrop:
    values = np.array([each.value for each in before])
    sampling = float(np.mean([_variance(each) for each in before]))
    days, mean, observed = len(before), float(values.mean()), float(values.var(ddof=1))
    # Of a day with fewer rows than the others more is due to who came.
    differing = observed * (1.0 + 1.0 / days) + max(0.0, _variance(today) - sampling)
    error = float(np.sqrt(max(differing, _variance(today) + sampling / days)))
    sign = 1.0 if better(metric, 1.0, 0.0) else -1.0
    allowed = config.drop_by * (mean if sign < 0 else 1.0)
    gain = sign * (today.value - mean) + allowed
    p = float(stdtr(days - 1, gain / error)) if error else float(gain >= 0)
    return DayDrop(
        task=task,
        metric=metric,
        value=today.value,
        before=mean,
        difference=today.value - mean,
        error=error,
        spread=float(np.sqrt(max(0.0, observed - sampling))),
        days=days,
        p=p,
        p_adjusted=p,
    )


def _variance(estimate: Estimate) -> float:
    return ((estimate.high - estimate.low) / (2.0 * _HALF_WIDTH)) ** 2


def alarm_findings(
    evaluation: Evaluation, day_drops: Sequence[DayDrop], config: MonitorConfig
) -> tuple[GateFinding, ...]:  # fmt: skip
    """Every rule and every drop, each passed or an alarm, in words.

    Raises:
        ConfigError: a rule names a task or metric that the evaluation does not have.
    """
    rules = [bound_clearly_missed(evaluation, rule) for rule in config.rules]
    return (*rules, *(_of_drop(each, config) for each in day_drops if config.drop))


def _of_drop(drop: DayDrop, config: MonitorConfig) -> GateFinding:
    alarm = drop.p_adjusted <= config.level
    text = (
        f"{drop.task}: {drop.metric} {drop.value:.4f} {'is clearly worse than' if alarm else 'is as good as'} the mean "
        f"{drop.before:.4f} of {drop.days} days before ({drop.difference:+.4f}, standard error {drop.error:.4f}, "
        f"days differ by {drop.spread:.4f}, p {drop.p_adjusted:.4f})"
    )
    return GateFinding(rule=f"{drop.task} no drop (level {config.level:g})", passed=not alarm, text=text)


def headlines_of(tasks: Mapping[str, Mapping[str, Estimate]]) -> list[tuple[str, str, Estimate]]:
    """Task, headline metric and its estimate, for the tasks whose rows define it."""
    headlines = []
    for task, scores in tasks.items():
        metric = headline_metric(scores)
        if metric is not None:
            headlines.append((task, metric, scores[metric]))
    return headlines
