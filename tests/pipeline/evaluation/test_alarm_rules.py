"""When a day is an alarm."""

import numpy as np
import pytest

from pipeline.evaluation.alarm_rules import MonitorConfig, alarm_findings, drops
from pipeline.evaluation.result import TaskScores
from pipeline.evaluation.task_metrics import Estimate
from tests.pipeline.conftest import Judged

CONFIG = MonitorConfig()


def _estimate(value: float, error: float) -> Estimate:
    return Estimate(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=1000, positives=100)


def _day(auc: float, rmse: float = 1.0, error: float = 0.01) -> TaskScores:
    return {"like": {"auc": _estimate(auc, error)}, "rating": {"rmse": _estimate(rmse, error)}}


WEEK = [_day(auc, rmse) for auc, rmse in zip((0.70, 0.71, 0.69, 0.70, 0.71, 0.70, 0.69), (1.0,) * 7, strict=True)]


def test_a_day_like_the_others_passes_and_a_clear_drop_does_not() -> None:
    assert all(each.p_adjusted > CONFIG.level for each in drops(_day(0.695), WEEK, CONFIG))
    like, rating = drops(_day(0.60, 1.2), WEEK, CONFIG)
    assert like.p_adjusted < CONFIG.level
    assert rating.p_adjusted < CONFIG.level
    assert (like.days, like.metric, rating.metric) == (7, "auc", "rmse")


def test_better_is_no_alarm() -> None:
    assert all(each.p > 0.5 for each in drops(_day(0.9, 0.5), WEEK, CONFIG))


def test_days_that_differ_much_anyway_need_a_larger_drop() -> None:
    calm = drops(_day(0.64), WEEK, CONFIG)[0]
    stormy = drops(_day(0.64), [_day(auc) for auc in (0.60, 0.80, 0.65, 0.75, 0.70, 0.62, 0.78)], CONFIG)[0]
    assert calm.p_adjusted < CONFIG.level < stormy.p_adjusted
    assert stormy.spread > 0.05


def test_what_is_allowed_is_taken_off_and_few_days_say_nothing() -> None:
    strict, lenient = (drops(_day(0.66), WEEK, MonitorConfig(drop_by=by))[0].p for by in (0.0, 0.05))
    assert strict < 0.01 < lenient
    assert drops(_day(0.1), WEEK[:2], CONFIG) == ()


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    """Days whose true value varies, seen with an error: at level 5 % at most 7 of 100 days alarm, over both tasks."""
    rng = np.random.default_rng(8)
    config = MonitorConfig(level=0.05)
    alarms = 0
    for _ in range(600):
        auc, rmse = (rng.normal(middle, 0.01, 8) + rng.normal(0, 0.01, 8) for middle in (0.7, 1.0))
        days = [_day(a, r) for a, r in zip(auc, rmse, strict=True)]
        alarms += any(each.p_adjusted <= config.level for each in drops(days[0], days[1:], config))
    assert alarms / 600 <= 0.07


@pytest.mark.parametrize(
    ("rule", "passed"), [("like.auc >= 0.3", True), ("like.auc >= 0.999", False), ("rating.rmse <= 0.01", False)]
)
def test_a_bound_is_an_alarm_where_the_whole_interval_is_beyond_it(judged: Judged, rule: str, passed: bool) -> None:  # noqa: FBT001
    (found,) = alarm_findings(judged.evaluation, (), MonitorConfig(rules=(rule,)))
    assert found.passed is passed
    assert rule.partition(" ")[0] in found.text


def test_a_bound_inside_the_interval_is_no_alarm(judged: Judged) -> None:
    auc = judged.evaluation.tasks["like"]["auc"]
    between = round((auc.value + auc.high) / 2, 6)
    (found,) = alarm_findings(judged.evaluation, (), MonitorConfig(rules=(f"like.auc >= {between}",)))
    assert found.passed
    assert "not clearly off" in found.text
