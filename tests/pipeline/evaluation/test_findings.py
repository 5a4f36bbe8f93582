"""Findings in words."""

from pipeline.evaluation.findings import calibration_findings
from pipeline.evaluation.task_metrics import Estimate


def _scores(ece: tuple[float, float, float], ratio: tuple[float, float, float]) -> dict[str, Estimate]:
    values = {"log_loss": (0.5, 0.49, 0.51), "ece": ece, "calibration": ratio}
    return {
        name: Estimate(value=value, low=low, high=high, n=1000, positives=330)
        for name, (value, low, high) in values.items()
    }


def test_probabilities_that_sum_to_too_much_are_a_finding_with_its_remedy() -> None:
    (text,) = calibration_findings({"never_married": _scores((0.032, 0.028, 0.036), (1.068, 1.055, 1.081))})
    assert text.startswith("never_married: the probabilities are far from calibrated: they sum to 1.068 [1.055, 1.081]")
    assert "off by 0.0320" in text
    assert "calibration: auto" in text


def test_what_chance_may_explain_is_none() -> None:
    assert calibration_findings({"click": _scores((0.012, 0.002, 0.02), (1.05, 0.99, 1.1))}) == []


def test_probabilities_of_rows_without_positives_are_a_finding() -> None:
    scores = {
        name: Estimate(value=0.36, low=0.34, high=0.38, n=1000, positives=0) for name in ("log_loss", "ece")
    }  # fmt: skip
    (text,) = calibration_findings({"click": scores})
    assert "off by 0.3600" in text


def test_regressions_have_no_probabilities() -> None:
    scores = {"rmse": Estimate(value=2.0, low=1.0, high=3.0, n=10, positives=None)}
    assert calibration_findings({"watch": scores}) == []
