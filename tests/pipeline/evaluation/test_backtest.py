"""The table of versions by day."""

from pipeline.evaluation.backtest import Backtest, VersionDays
from pipeline.evaluation.task_metrics import Estimate

AUC = {"all": Estimate(value=0.7, low=0.6, high=0.8, n=90, positives=30)}


def _version(name: str, judged: tuple[int, float, float]) -> VersionDays:
    return VersionDays(version=name, judged={"click": judged}, tasks={"click": AUC}, metrics={"click": "auc"})


def test_versions_whose_recipes_weigh_a_task_otherwise_are_named() -> None:
    versions = (_version("shop/1", (90, 90.0, 30.0)), _version("shop/2", (90, 140.5, 44.0)))
    (note,) = (line for line in Backtest(data="days", versions=versions).lines() if line.startswith("note: "))
    assert note.startswith("note: click: the recipes have other rows, labels or weights")
    assert "shop/2 90 rows, sum of weights 140.5, of labels 44" in note


def test_versions_that_are_judged_on_the_same_have_no_note() -> None:
    versions = (_version("shop/1", (90, 90.0, 30.0)), _version("shop/2", (90, 90.0, 30.0)))
    assert not [line for line in Backtest(data="days", versions=versions).lines() if line.startswith("note: ")]


def test_a_day_on_which_a_task_has_no_positives_keeps_its_column() -> None:
    version = _version("shop/1", (90, 90.0, 30.0)).model_copy(update={"days": ("all", "2026-11-26")})
    lines = Backtest(data="days", versions=(version,)).lines()
    assert lines[-2].split() == ["version", "all", "2026-11-26"]
    assert lines[-1].split()[:3] == ["shop/1", "0.7000", "-"]
