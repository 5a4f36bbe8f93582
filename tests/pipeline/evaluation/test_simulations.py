"""Short forms of `benchmarks.simulations`: generous bands, few draws; the page has those of a thousand."""

import numpy as np
import pytest

from benchmarks import simulations
from benchmarks.simulations import World, coverage, paired


@pytest.fixture(autouse=True)
def _a_smaller_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulations, "TRUTH_ROWS", 200_000)


def test_the_intervals_of_every_metric_hold_the_truth_about_as_often_as_they_say() -> None:
    cases = list(coverage(World(80, 10, offset=0.3), 60, replicates=100))
    names = {case.case.split()[2] for case in cases}
    assert {"auc", "pr_auc", "lift", "ne", "ece", "gauc", "ndcg@3", "rmse", "r2", "xauc", "gxauc"} <= names
    shares = {case.case: case.value for case in cases}
    # Of 60 draws a share of .95 is under .85 once in four hundred times.
    assert {name: share for name, share in shares.items() if share < 0.85} == {}
    assert 0.92 <= np.mean(list(shares.values())) <= 0.985


def test_the_intervals_of_differences_hold_the_true_ones() -> None:
    shares = {case.case: case.value for case in paired(40, replicates=100)}
    assert {name: share for name, share in shares.items() if share < 0.8} == {}
    assert np.mean(list(shares.values())) >= 0.91
