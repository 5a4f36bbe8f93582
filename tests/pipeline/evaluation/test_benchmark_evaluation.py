"""The short form of `benchmarks.evaluation`: what is timed there gives what its rivals give; no time is judged here."""

import pytest

from benchmarks.evaluation import metric_cases
from benchmarks.report import Case, NotInstalled


def test_what_is_timed_is_exact_and_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    cases = {case.case: case for case in metric_cases(20_000, 1) if isinstance(case, Case)}
    off = [case for name, case in cases.items() if "off " in name]
    assert off[0].bound == 1e-12
    assert all(case.holds for case in off)
    assert "metrics of 20,000 rows: round 1 of 1" in capsys.readouterr().err


def test_a_rival_that_is_not_installed_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("benchmarks.evaluation.find_spec", lambda _: None)
    missing = [case for case in metric_cases(2_000, 1) if isinstance(case, NotInstalled)]
    assert [case.package for case in missing] == ["polars"]
