"""What every verb of the command has in common."""

import atexit
import gc
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.console import answer

RECIPE = "pipeline/recipes/movielens.yaml"
"""The project that the examples name."""


@dataclass(frozen=True)
class Verb:
    """A verb: what it does in a line, an example, its arguments, and the function that does it.

    `run` returns the exit code; None means 0. A `brief` verb's process never collects garbage; see `never_collect`.
    """

    name: str
    summary: str
    example: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int | None]
    brief: bool = False


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` on."""

    def number(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            message = f"{text!r} is not a whole number of at least {least}"
            raise ArgumentTypeError(message)
        return int(text)

    return number


def add_json(parser: ArgumentParser) -> None:
    """``--json``: one JSON object on standard output, for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def add_config(parser: ArgumentParser) -> None:
    """The project's YAML file and values that win over it."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the project's YAML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="set a value of the file, such as train.epochs=2; may be given several times",
    )


def respond(args: Namespace, result: dict[str, Any], lines: list[str]) -> None:
    """Print a result: as JSON where a program asked for it, else the lines for a person."""
    answer(json.dumps(result, indent=1, default=str) if args.json else "\n".join(lines))


def never_collect() -> None:
    """For a process of a second or two that makes many small objects: the collector would take a fifth of its time."""
    gc.disable()


def end_at_once() -> None:
    """For a process that ends with its command: let Python's last collection pass over what is there.

    It would look through all that torch, ibis and Prefect have made: two seconds, and on a busy machine twenty, after
    the command's last line. Registered before they are imported, this comes after whatever they do at the end.
    """
    atexit.register(_pass_over)


def _pass_over() -> None:
    modules: list[object] = [*sys.modules.values()]
    # A circle, which thus stays, and all modules with it: DuckDB's, taken down alone, calls its objects a leak.
    modules.append(modules)
    gc.freeze()


def config_arguments(parser: ArgumentParser) -> None:
    """The arguments of a verb that takes a project and nothing else."""
    add_config(parser)
    add_json(parser)


def run_arguments(parser: ArgumentParser) -> None:
    """The arguments of a verb that goes on with a training run."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a training run: runs/NAME/training/RUN")
    add_json(parser)
