"""What every benchmark prints: the machine, a table of cases against their bounds, and with ``--json`` one object."""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from contract.errors import MoerankError

LIBRARIES = ("torch", "torchrec", "onnxruntime", "grpcio", "duckdb", "pyarrow", "numpy")


@dataclass(frozen=True)
class Case:
    """One measured figure: its median over `rounds`, the lowest and the highest, and the bound it must keep, if any."""

    case: str
    value: float
    unit: str
    bound: float | None
    better: Literal["lower", "higher"]
    rounds: int
    spread: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether the value keeps its bound; a case without one always does."""
        if self.bound is None:
            return True
        return self.value <= self.bound if self.better == "lower" else self.value >= self.bound


@dataclass(frozen=True)
class NotInstalled:
    """A figure that this machine cannot give, because a rival's package is not installed."""

    case: str
    package: str


def case_of(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    bound: float | None = None,
    better: Literal["lower", "higher"] = "lower",
    centre: Literal["median", "mean"] = "median",
) -> Case:
    """A case out of one value per round."""
    middle = statistics.median(values) if centre == "median" else statistics.fmean(values)
    return Case(name, middle, unit, bound, better, len(values), (min(values), max(values)))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=True),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows ``--json``; from here on the program says in one line what it cannot work with."""
    sys.excepthook = _say
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, MoerankError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def row_of(case: Case | NotInstalled) -> str:
    """The case's row of the table."""
    if isinstance(case, NotInstalled):
        return f"| {case.case} | not installed: {case.package} | | | |"
    low, high = case.spread
    sign = "<=" if case.better == "lower" else ">="
    bound = "" if case.bound is None else f"{sign} {case.bound:g}"
    verdict = "" if case.bound is None else ("yes" if case.holds else "NO")
    return f"| {case.case} | {case.value:.4g} {case.unit} | {low:.4g} .. {high:.4g} | {bound} | {verdict} |"


def finish(benchmark: str, cases: Sequence[Case | NotInstalled], *, as_json: bool) -> int:
    """Print the table, with ``--json`` the object after it, and return the exit code; what is missing fails nothing."""
    print(f"| case | {'value':>10} | spread | bound | holds |\n|---|---|---|---|---|")
    measured = [case for case in cases if isinstance(case, Case)]
    for case in cases:
        print(row_of(case))
    if as_json:
        rows = [{**asdict(case), "holds": case.holds} for case in measured]
        missing = [asdict(case) for case in cases if isinstance(case, NotInstalled)]
        print(json.dumps({"benchmark": benchmark, "machine": machine(), "cases": rows, "not_installed": missing}))
    sys.stdout.flush()
    return 0 if all(case.holds for case in measured) else 1
