"""The quality gate."""

import pytest
from pydantic import ValidationError

from contract.errors import ConfigError, QualityGateError
from pipeline.evaluation.quality_gate import QualityConfig, enforce, examine
from tests.pipeline.conftest import Judged


def test_a_good_model_passes_and_every_rule_is_reported(judged: Judged) -> None:
    config = QualityConfig(
        rules=("like.auc >= 0.6", "rating.rmse < 0.5"), beat=("popularity", "constant"), certain=True
    )
    findings = enforce(judged.evaluation, config)
    assert [finding.passed for finding in findings] == [True] * 7
    assert findings[-1].rule == "rating beats constant"


def test_all_failed_rules_are_listed_with_value_and_demand(judged: Judged) -> None:
    config = QualityConfig(rules=("like.auc >= 0.999", "rating.rmse <= 0.01", "like.auc > 0.5"))
    with pytest.raises(
        QualityGateError, match=r"like\.auc is 0\.\d{4}, but >= 0\.999 .*rating\.rmse is .*<= 0\.01"
    ) as e:
        enforce(judged.evaluation, config)
    assert "0.5 is asked" not in str(e.value)
    assert e.value.exit_code == 3


def test_a_model_that_only_equals_the_baseline_does_not_beat_it(judged: Judged) -> None:
    constant = judged.evaluation.model_copy(update={"tasks": judged.evaluation.baselines["constant"]})
    findings = examine(constant, QualityConfig(beat=("constant",), tasks=("like",)))
    assert [finding.passed for finding in findings] == [True, False]


def test_certain_asks_for_the_unfavourable_end_of_the_interval(judged: Judged) -> None:
    auc = judged.evaluation.tasks["like"]["auc"]
    rule = f"like.auc >= {(auc.low + auc.value) / 2:.5f}"
    assert examine(judged.evaluation, QualityConfig(rules=(rule,)))[1].passed
    assert not examine(judged.evaluation, QualityConfig(rules=(rule,), certain=True))[1].passed


def test_certain_holds_the_unfavourable_end_of_the_interval_against_a_baseline(judged: Judged) -> None:
    auc = judged.evaluation.tasks["like"]["auc"]
    close = auc.model_copy(update={"value": (auc.low + auc.value) / 2})
    evaluation = judged.evaluation.model_copy(update={"baselines": {"constant": {"like": {"auc": close}}}})
    rule = QualityConfig(beat=("constant",), tasks=("like",))
    assert examine(evaluation, rule)[1].passed
    assert not examine(evaluation, rule.model_copy(update={"certain": True}))[1].passed


def test_a_rule_on_a_metric_that_the_rows_do_not_define_does_not_pass(judged: Judged) -> None:
    reason = "all rows are positive"
    undefined = judged.evaluation.model_copy(update={"undefined": {"like": {"auc": reason}}})
    finding = examine(undefined, QualityConfig(rules=("like.auc >= 0.1",)))[1]
    assert not finding.passed
    assert finding.text == f"like.auc is not defined because {reason}, but >= 0.1 is asked for"


def test_too_few_rows_are_refused(judged: Judged) -> None:
    with pytest.raises(QualityGateError, match="evaluated on 2000 rows"):
        enforce(judged.evaluation, QualityConfig(min_rows=5000))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QualityConfig(rules=("click.auc > 0.5",)), "no task 'click'; there are like, rating"),
        (QualityConfig(rules=("like.rmse < 1",)), "like has no 'rmse'; it has auc"),
        (QualityConfig(beat=("luck",)), "no such baseline; there are constant, popularity"),
        (QualityConfig(beat=("constant",), tasks=("click",)), "no task 'click'"),
    ],
)
def test_a_rule_about_nothing_is_a_configuration_error(judged: Judged, config: QualityConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        examine(judged.evaluation, config)


@pytest.mark.parametrize("rule", ["like.auc", "like.auc >= high", "auc >= 0.5", "like.auc == 0.5", "like.auc >= 0.5.1"])
def test_a_rule_that_cannot_be_read_is_refused(rule: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        QualityConfig(rules=(rule,))
