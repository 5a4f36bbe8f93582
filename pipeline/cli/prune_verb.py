"""The verb `prune`: old runs, versions and days of logs go, as the project's retention says."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import Verb, add_config, add_json, respond


def _prune_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)


def _prune(args: Namespace) -> None:
    from contract.files import exclusive  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.project import retention  # noqa: PLC0415
    from pipeline.project.project_config import read_config  # noqa: PLC0415

    config = read_config(args.config, args.overrides)
    with exclusive(config.root):
        gone = retention.prune(config.parts, config.retention)
    lines = [*(f"removed: {run}" for run in gone.runs), *(f"removed: version {number}" for number in gone.versions)]
    lines += [f"removed: {day}" for day in gone.logs]
    nothing = "nothing to remove; retention.runs, retention.versions and retention.logs say how many stay"
    respond(args, gone.as_json(), lines or [nothing])


VERB = Verb(
    "prune",
    "remove old runs, versions and days of logs as the project's retention says; never what is served",
    "moerank prune shop.yaml --set retention.runs=7 --set retention.versions=7",
    _prune_arguments,
    _prune,
)
