"""All benchmarks one after the other, then which bounds fall short: ``python -m benchmarks [NAME ...]``, `make bench`.

Each runs in a process of its own, so that none measures what another left in memory. What cannot run here (a rival or a
data set is absent) is a row that says why and fails nothing; a bound that falls short makes the exit code 1.

``--quick`` runs each with as little as it can, to see that all of them work: `make bench BENCH=--quick`. What it prints
is no measurement, so no bound is looked at.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
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
# A variable that a benchmark cannot do without.
NEEDS = {"fresh_rates": "KUAIRAND_DIR", "kuairand": "KUAIRAND_DIR", "week": "KUAIRAND_DIR"}
# What only a person can name.
BY_HAND = {"flagship": "it compares bundles: python -m benchmarks.flagship --old STORE/M/1 --new STORE/M/2"}
# The least that shows that a benchmark works.
QUICK = {
    "bounds": "--tables movielens --seeds 1 --override train.epochs=1",
    "comet_protocol": "--trials 1 --budgets 1 --gates top_k",
    "evaluation": "--rows 100000 --events 20000 --score-rows 20000 --rounds 1",
    "features": "--rows 20000 --rounds 1",
    "flagship": "",
    "fresh_rates": "--as-of day",
    "gates": "--seeds 1 --epochs 1",
    "gpu_serving": "--cpu-dry-run",
    "gpu_training": "--cpu-dry-run",
    "kuairand": "--seeds 1",
    "papers": "--tasks 16 --trials 1 --gates top_k",
    "serving": "--rounds 1",
    "serving_processes": "--rounds 1",
    "serving_threads": "--rounds 1",
    "simulations": "--draws 20",
    "spark": "--rows 2000",
    "sparse_graph": "--rounds 2",
    "sparse_training": "--rows 256 --rounds 1",
    "training": "--quick --rounds 1",
    "training_sizes": "--recipes movielens --seeds 1",
    "twins": "--tables movielens --seeds 1 --variants top_k",
    "week": "--seeds 1 --nights 1",
}


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


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run one benchmark, showing its table as it comes."""
    variable = NEEDS.get(name)
    if variable and not os.environ.get(variable):
        return Outcome(name, skipped=f"{variable} is not set")
    if name in BY_HAND:
        return Outcome(name, skipped=BY_HAND[name])
    print(f"\n## {name}{': quick, no measurement' if quick else ''}\n", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *(QUICK[name].split() if quick else ())]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    print("\n".join(line for line in ran.stdout.splitlines() if not line.startswith("{")), flush=True)
    return outcome_of(name, ran.stdout, ran.stderr)


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
        return [*lines, f"{ran} of {len(outcomes)} benchmarks work; a quick run is no measurement, and judges no bound"]
    bounded = [case for outcome in outcomes for case in outcome.cases if case["bound"] is not None]
    held = sum(case["holds"] for case in bounded)
    return [*lines, f"{held} of {len(bounded)} bounds hold"]


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
    outcomes = [run(name, quick=options.quick) for name in chosen]
    print("\n## All\n\n" + "\n".join(summary(outcomes, quick=options.quick)))
    return 1 if any(outcome.failed or (outcome.short and not options.quick) for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
