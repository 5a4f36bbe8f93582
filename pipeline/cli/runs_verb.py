"""The verb `runs`: list training runs with their versions and figures."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from pipeline.cli.verb import Verb, add_json, respond


def _runs_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "workspace", type=Path, nargs="?", default=Path("runs"), help="where projects lie [%(default)s]"
    )
    add_json(parser)


def _runs(args: Namespace) -> None:
    if not args.workspace.is_dir():
        message = (
            f"there is no workspace at {args.workspace}; name the directory that `workspace` names in the YAML file"
        )
        raise ConfigError(message)
    if (args.workspace / "training").is_dir():
        message = f"{args.workspace} is one project; name the workspace above it, {args.workspace.absolute().parent}"
        raise ConfigError(message)
    from pipeline.monitor.run_list import HEADER, list_runs, write_index  # noqa: PLC0415 - keeps `moerank --help` fast

    runs, page = list_runs(args.workspace), write_index(args.workspace)
    lines = [HEADER, *(run.line() for run in runs), "* the current version", f"page: {page}"]
    respond(args, {"page": str(page), "runs": [run.model_dump(mode="json") for run in runs]}, lines)


VERB = Verb(
    "runs",
    "list training runs with their versions and figures, and write them as a page",
    "moerank runs runs",
    _runs_arguments,
    _runs,
)
