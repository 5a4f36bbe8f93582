"""What an evaluation shows that a person should act on, in words and with the remedy."""

from collections.abc import Mapping

from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.task_metrics import Estimate, Scores, TaskRows

_MOST_OFF = 0.03
"""How far the sum of the probabilities may be from that of the labels, as a share, before it is a finding."""
_MOST_ECE = 0.01
_SHARE_OF_RATE = 0.1
"""An error of calibration is a finding above 0.01, or above a tenth of the rate of a rare label."""
_REMEDY = (
    "export with `calibration: auto` (or platt, isotonic), on validation rows near these in time; "
    "the order of candidates does not change"
)


def calibration_findings(tasks: Mapping[str, Scores]) -> list[str]:
    """A sentence for each binary task whose probabilities are clearly not those of its labels.

    Clearly: the end of the 95 % interval nearest to perfect is beyond the bound.
    """
    findings = []
    for task, scores in tasks.items():
        if "log_loss" not in scores:
            continue
        signs = [text for text in (_ratio(scores.get("calibration")), _error(scores.get("ece"))) if text]
        if signs:
            findings.append(
                f"{task}: the probabilities are far from calibrated: {' and '.join(signs)}. Remedy: {_REMEDY}"
            )
    return findings


def interval_findings(tasks: Mapping[str, TaskRows]) -> list[str]:
    """A sentence for each task whose rows are all of one user, because its intervals have no width."""
    return [
        f"{task}: all rows are of one user, so the intervals say nothing; judge on rows of two users at least"
        for task, rows in tasks.items()
        if rows.is_of_one
    ]


def two_value_findings(rows: Predictions) -> tuple[str, ...]:
    """A sentence for each regression task of a file of scores whose labels look like a yes and a no, but not 0 and 1.

    The kind of such a task is read off its labels, so 0 and 2 or 1 and 2 would get RMSE without a word.
    """
    findings = []
    for column, (task, kind) in enumerate(rows.tasks.items()):
        labels = rows.labels[rows.weights[:, column] > 0, column]
        if kind == "binary" or labels.size == 0:
            continue
        low, high = float(labels.min()), float(labels.max())
        if low < high and bool(((labels == low) | (labels == high)).all()):
            findings.append(
                f"{task}: the labels are {low:g} and {high:g} and nothing else, so the task is judged as a regression; "
                f"if {high:g} means yes, write 0 for {low:g} and 1 for {high:g}, and evaluate again: only labels of 0 "
                "and 1 get AUC, log loss and calibration"
            )
    return tuple(findings)


def _ratio(calibration: Estimate | None) -> str:
    """Too many or too few predicted positives, or nothing to say."""
    if calibration is None or (calibration.low <= 1.0 + _MOST_OFF and calibration.high >= 1.0 - _MOST_OFF):
        return ""
    interval = f"[{calibration.low:.3f}, {calibration.high:.3f}]"
    return f"they sum to {calibration.value:.3f} {interval} times the positive labels"


def _error(ece: Estimate | None) -> str:
    if ece is None or ece.positives is None:
        return ""
    bound = min(_MOST_ECE, _SHARE_OF_RATE * ece.positives / ece.n) if ece.positives else _MOST_ECE
    return f"they are off by {ece.value:.4f} [{ece.low:.4f}, {ece.high:.4f}] on average" if ece.low > bound else ""
