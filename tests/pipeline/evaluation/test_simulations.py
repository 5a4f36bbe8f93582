"""Short forms of `benchmarks.simulations`: generous bands, few draws; the page has those of a thousand."""

import sys

import numpy as np
import pytest

from benchmarks import simulations
from benchmarks.simulations import World, coverage, paired, power


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


def test_a_gain_of_005_in_auc_on_40000_rows_is_usually_found() -> None:
    (case,) = power(8)
    # In 1,000 draws nearly nine of ten find it; four or fewer of eight would be one case in a hundred.
    assert case.value >= 5 / 8


def test_draws_are_counted_while_they_run_and_a_share_is_said_before_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulations", "--only", "equal", "--draws", "3"])
    simulations.main()
    said = capsys.readouterr()
    lines = [line.strip() for line in said.err.splitlines()]
    assert lines[:4] == ["simulations: equal", *(f"simulations: equal: {done} of 3 draws" for done in (1, 2, 3))]
    assert lines[4].startswith("simulations: equal models told apart by any test of two tasks")
    assert "| equal models told apart" in said.out
