"""All benchmarks one after the other, then which bounds fall short: ``python -m benchmarks [NAME ...]``, `make bench`.

Each runs in a process of its own, so that none measures what another left in memory. What cannot run here (a rival or a
data set is absent) is a row that says why and fails nothing; a bound that falls short makes the exit code 1.

``--quick`` runs each with as little as it can, to see that all of them work: `make bench BENCH=--quick`. What it prints
is not a measurement, so no bound is judged. It ends within 20 minutes: what takes longer is a row that says so.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Every program here that ends with `finish` of benchmarks/report.py.
NAMES = tuple(
    sorted(
        file.stem
        for file in HERE.glob("*.py")
        if file.stem != "__main__" and "return finish(" in file.read_text(encoding="utf-8")
    )
)
KUAIRAND, MOVIELENS, ADULT = "KUAIRAND_DIR", "movielens", "adult"
# The data sets that a benchmark cannot do without; its quick form needs the first one alone.
NEEDS = {
    "bounds": (MOVIELENS, ADULT, KUAIRAND),
    "comet_protocol": (MOVIELENS,),
    "ece_floor": (ADULT,),
    "fresh_rates": (KUAIRAND,),
    "gate_columns": (MOVIELENS,),
    "gates": (MOVIELENS,),
    "kuairand": (KUAIRAND,),
    "pruning": (MOVIELENS,),
    "training_sizes": (MOVIELENS, ADULT),
    "twins": (MOVIELENS, KUAIRAND),
    "week": (KUAIRAND,),
}
# What only a person can name.
BY_HAND = {"flagship": "it compares bundles: python -m benchmarks.flagship --old STORE/M/1 --new STORE/M/2"}
# The least that shows that a benchmark works.
QUICK = {
    "bounds": "--tables movielens --seeds 1 --override train.epochs=1",
    "comet_protocol": "--trials 1 --budgets 1 --gates top_k",
    "ece_floor": "--draws 10 --override train.epochs=1",
    "evaluation": "--rows 100000 --events 20000 --score-rows 20000 --rounds 1",
    "features": "--rows 20000 --rounds 1",
    "flagship": "",
    "fresh_rates": "--as-of day",
    "gate_columns": "--groups columns --seeds 1 --epochs 1",
    "gates": "--seeds 1 --epochs 1",
    "gpu_serving": "--cpu-dry-run",
    "gpu_training": "--cpu-dry-run",
    "kuairand": "--seeds 1",
    "papers": "--tasks 16 --trials 1 --gates top_k",
    "pruning": "--variants recipe --seeds 1",
    "serving": "--rounds 1",
    "serving_processes": "--rounds 1",
    "serving_threads": "--rounds 1",
    "simulations": "--draws 5",
    "spark": "--rows 2000",
    "sparse_graph": "--rounds 2",
    "sparse_training": "--rows 256 --rounds 1",
    "training": "--quick --rounds 1",
    "training_sizes": "--recipes movielens --seeds 1",
    "twins": "--tables movielens --seeds 1 --variants top_k",
    "week": "--seeds 1 --nights 1",
}


QUICK_SECONDS, QUICK_SECONDS_EACH = 1200.0, 180.0
END_SECONDS = 20.0
"""How long a benchmark that is interrupted may take to end its servers."""


@dataclass(frozen=True)
class Outcome:
    """What a benchmark said: its cases, or why there are none."""

    name: str
    cases: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    @property
    def short(self) -> list[dict[str, Any]]:
        """The cases whose bound does not hold."""
        return [case for case in self.cases if not case["holds"]]


def outcome_of(name: str, output: str, errors: str) -> Outcome:
    """Read what a benchmark printed: its JSON object is the last line."""
    lines = output.strip().splitlines()
    try:
        said = json.loads(lines[-1])
        return Outcome(name, said["cases"], said.get("not_installed", []))
    except (IndexError, ValueError, KeyError, TypeError):
        reason = (errors.strip().splitlines() or ["it printed no result"])[-1]
        absent = re.match(r"ModuleNotFoundError: No module named '([^']+)'", reason)
        return Outcome(name, skipped=f"not installed: {absent[1]}") if absent else Outcome(name, failed=reason)


def missing_data(needs: Sequence[str]) -> str:
    """Which data set is not there, and what to do; empty if all are."""
    for need in needs:
        if need == KUAIRAND and not os.environ.get(KUAIRAND):
            return f"{KUAIRAND} is not set"
        if need != KUAIRAND and not Path("data", need).is_dir():
            return f"data/{need} is not there: moerank import {need}"
    return ""


def run(name: str, *, quick: bool = False, seconds: float | None = None) -> Outcome:
    """Run one benchmark for at most some seconds, and show its table."""
    absent = missing_data(NEEDS.get(name, ())[: 1 if quick else None])
    if absent:
        return Outcome(name, skipped=absent)
    if name in BY_HAND:
        return Outcome(name, skipped=BY_HAND[name])
    if seconds is not None and seconds <= 0:
        return Outcome(name, skipped=f"the {QUICK_SECONDS / 60:g} minutes of a quick run are over")
    print(f"\n## {name}{': quick, no measurement' if quick else ''}\n", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(QUICK[name].split() if quick else ())]
    try:
        output, errors = said_by(command, seconds)
    except subprocess.TimeoutExpired:
        return Outcome(name, skipped=f"it was not done after {seconds:.0f} seconds; run it alone")
    print("\n".join(line for line in output.splitlines() if not line.startswith("{")), flush=True)
    return outcome_of(name, output, errors)


def said_by(command: Sequence[str], seconds: float | None) -> tuple[str, str]:
    """What a program prints, and its errors.

    Raises:
        subprocess.TimeoutExpired: it took longer; it has been ended, with all that it started.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as running:
        try:
            return running.communicate(timeout=seconds)
        finally:
            if running.poll() is None:
                _end(running)


def _end(running: "subprocess.Popen[str]") -> None:
    """Interrupt it, as ctrl-c does, so that it can end its servers; then kill what is left of its session."""
    running.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        running.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)


def summary(outcomes: Sequence[Outcome], *, quick: bool = False) -> list[str]:
    """Lines on what falls short, what did not run, and what was not installed."""
    lines: list[str] = []
    for outcome in outcomes:
        lines += [f"not run: {outcome.name}: {outcome.skipped}"] * bool(outcome.skipped)
        lines += [f"failed: {outcome.name}: {outcome.failed}"] * bool(outcome.failed)
        lines += [f"not installed: {outcome.name}: {row['case']} ({row['package']})" for row in outcome.missing]
        for case in () if quick else outcome.short:
            sign = "<=" if case["better"] == "lower" else ">="
            lines.append(
                f"falls short: {outcome.name}: {case['case']}: {case['value']:.4g} {case['unit']}, bound {sign} "
                f"{case['bound']:g}"
            )
    if quick:
        ran = sum(bool(outcome.cases) for outcome in outcomes)
        return [*lines, f"{ran} of {len(outcomes)} benchmarks work; a quick run measures nothing, and judges no bound"]
    bounded = [case for outcome in outcomes for case in outcome.cases if case["bound"] is not None]
    held = sum(case["holds"] for case in bounded)
    return [*lines, f"{held} of {len(bounded)} bounds hold"]


def bounds_table(outcomes: Sequence[Outcome], *, quick: bool = False) -> list[str]:
    """Every bound with the value that it was held against, in Markdown; of a quick run, none is judged."""
    rows = ["| benchmark | case | value | bound | holds |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        for case in outcome.cases:
            if case["bound"] is not None:
                sign = "<=" if case["better"] == "lower" else ">="
                verdict = "not judged" if quick else "yes" if case["holds"] else "NO"
                value = f"{case['value']:.4g} {case['unit']}"
                rows.append(f"| {outcome.name} | {case['case']} | {value} | {sign} {case['bound']:g} | {verdict} |")
    return rows


def run_all(names: Sequence[str], *, quick: bool = False) -> list[Outcome]:
    """Run them one after the other; a quick run begins with those that need no data set, and ends in time."""
    end = time.monotonic() + QUICK_SECONDS
    order = sorted(names, key=lambda name: name in NEEDS) if quick else names
    return [
        run(name, quick=quick, seconds=min(QUICK_SECONDS_EACH, end - time.monotonic()) if quick else None)
        for name in order
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all; exit code 1 if a bound falls short or a benchmark ends in an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="as little as shows that they work; no measurement")
    options = parser.parse_args(argv)
    chosen = options.names
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    outcomes = run_all(chosen, quick=options.quick)
    print("\n## All\n\n" + "\n".join([*bounds_table(outcomes, quick=options.quick), ""]))
    print("\n".join(summary(outcomes, quick=options.quick)))
    return 1 if any(outcome.failed or (outcome.short and not options.quick) for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
