"""Programs whose lines count as those of the tests that start them: ``python -m tests.covered_program MODULE ...``."""

import os
import runpy
import sys

MEASURED = "TESTS_ARE_MEASURED"


def program(module: str) -> list[str]:
    """The beginning of a command line that runs a module, measured where the tests are (`tests.covered_lines`)."""
    measured = ["tests.covered_program"] if os.environ.get(MEASURED) else []
    return [sys.executable, "-m", *measured, module]


def main() -> None:
    from tests.covered_lines import MEASURING  # noqa: PLC0415 what is imported after it is measured

    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        MEASURING.write()


if __name__ == "__main__":
    main()
