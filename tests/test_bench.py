"""`make bench`: what falls short is said, what is absent fails nothing, and every benchmark is run by it."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as bench
from benchmarks.__main__ import (
    BY_HAND,
    NAMES,
    NEEDS,
    QUICK,
    Outcome,
    bounds_table,
    main,
    outcome_of,
    run,
    run_all,
    said_by,
    summary,
)
from benchmarks.report import arguments
from contract.errors import ConfigError
from tests.patience import PATIENCE

CASE = {"case": "a day", "value": 0.3, "unit": "of a build", "bound": 0.2, "better": "lower", "holds": False}
HELD = CASE | {"value": 0.1, "holds": True}


def said(*cases: object) -> str:
    missing = [{"case": "polars", "package": "polars"}]
    return "| case |\n" + json.dumps({"cases": cases, "not_installed": missing}) + "\n"


def test_a_bound_that_falls_short_is_named_with_value_and_bound() -> None:
    outcome = outcome_of("features", said(CASE, HELD), "")
    assert summary([outcome]) == [
        "not installed: features: polars (polars)",
        "falls short: features: a day: 0.3 of a build, bound <= 0.2",
        "1 of 2 bounds hold",
    ]


def test_a_missing_package_is_a_row_and_no_failure() -> None:
    errors = "Traceback ...\nModuleNotFoundError: No module named 'lightgbm'\n"
    assert outcome_of("bounds", "", errors) == Outcome("bounds", skipped="not installed: lightgbm")


@pytest.mark.parametrize("name", ["bounds", "fresh_rates"])
def test_without_lightgbm_its_benchmarks_say_so_by_themselves(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("trees", "judged_runs", name):
        monkeypatch.delitem(sys.modules, f"benchmarks.{part}", raising=False)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.setattr(sys, "argv", [name])
    assert import_module(f"benchmarks.{name}").main() == 0
    assert "not installed: lightgbm" in capsys.readouterr().out


def test_any_other_error_is_a_failure_with_its_last_line() -> None:
    assert outcome_of("serving", "| half a table", "Traceback\nValueError: h2load") == Outcome(
        "serving", failed="ValueError: h2load"
    )


def test_a_data_set_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUAIRAND_DIR", raising=False)
    assert run("kuairand").skipped == "KUAIRAND_DIR is not set"


def test_a_table_that_was_not_imported_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("gates", quick=True).skipped == "data/movielens is not there: moerank import movielens"


def test_a_program_says_in_one_line_what_it_cannot_work_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    arguments("a benchmark")
    sys.excepthook(ConfigError, ConfigError("KUAIRAND_DIR is not set"), None)
    assert capsys.readouterr().err == "error: KUAIRAND_DIR is not set\n"
    sys.excepthook(ValueError, ValueError("a fault"), None)
    assert "ValueError: a fault" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sparsegraph"])
    assert "there is no benchmark 'sparsegraph'; there are bounds" in capsys.readouterr().err


def test_every_program_that_prints_bounds_is_among_them() -> None:
    assert {"features", "gates", "serving", "sparse_graph", "sparse_training"} <= set(NAMES)
    assert not {"__main__", "report", "paired"} & set(NAMES)


def test_a_quick_run_judges_no_bound_and_fails_only_where_a_benchmark_does() -> None:
    outcomes = [outcome_of("features", said(CASE), ""), Outcome("serving", failed="ValueError: h2load")]
    assert summary(outcomes, quick=True) == [
        "not installed: features: polars (polars)",
        "failed: serving: ValueError: h2load",
        "1 of 2 benchmarks work; a quick run measures nothing, and judges no bound",
    ]


def test_every_benchmark_says_what_the_least_of_it_is() -> None:
    assert sorted(QUICK) == sorted(NAMES)
    assert {*NEEDS, *BY_HAND} <= set(NAMES)


def test_what_only_a_person_can_name_is_not_run() -> None:
    assert run("flagship").skipped.startswith("it compares bundles")


def test_every_bound_is_in_one_table_and_a_quick_run_judges_none() -> None:
    outcomes = [outcome_of("features", said(CASE, HELD, HELD | {"bound": None}), "")]
    assert bounds_table(outcomes)[2:] == [
        "| features | a day | 0.3 of a build | <= 0.2 | NO |",
        "| features | a day | 0.1 of a build | <= 0.2 | yes |",
    ]
    assert {row.split(" | ")[-1] for row in bounds_table(outcomes, quick=True)[2:]} == {"not judged |"}


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        said_by([sys.executable, "-c", "import time; time.sleep(600)"], seconds=0.1)


def test_what_is_ended_leaves_nothing_that_it_started() -> None:
    child = "import time; time.sleep(600)"
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); {child}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        started = psutil.Process(int(running.stdout.readline()))
        bench._end(running)
    assert psutil.wait_procs([started], PATIENCE)[1] == []


def test_a_quick_run_begins_no_benchmark_when_its_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0.0)
    assert {outcome.skipped for outcome in run_all(["features", "serving"], quick=True)} == {
        "the 0 minutes of a quick run are over"
    }
