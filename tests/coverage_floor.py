"""Print the suite's coverage and hold its floor: ``python -m tests.coverage_floor``.

It combines the data files that each process of the suite left (see `tests.covered_lines`).

The floor, `fail_under` in pyproject.toml, only rises: whoever brings the coverage a point and a half above it raises it
by one. The half is for lines that run on some machines only.
"""

import io
import sys
import tomllib
from pathlib import Path

from coverage import Coverage

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def floor_in(pyproject: str) -> int:
    return int(tomllib.loads(pyproject)["tool"]["coverage"]["report"]["fail_under"])


def main() -> int:
    coverage = Coverage(data_file=".coverage")
    coverage.combine()
    total = coverage.report(file=sys.stdout if "--all" in sys.argv else io.StringIO(), show_missing=True)
    floor = floor_in(PYPROJECT.read_text(encoding="utf-8"))
    sys.stdout.write(f"coverage: {total:.1f} % of the lines; the floor is {floor} %\n")
    if total < floor:
        sys.stdout.write("that is below the floor: test what you added (--all lists the lines)\n")
        return 1
    if total >= floor + 1.5:
        sys.stdout.write(f"raise fail_under in pyproject.toml to {floor + 1}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
