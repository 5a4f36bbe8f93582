"""The verb `skew`: compare served features with what the feature build computes for the same events."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from contract.errors import ConfigError, QualityGateError
from contract.files import exclusive
from pipeline.cli.verb import Verb, add_config, add_json, respond

MOST = 0.01


def _skew_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--most", type=float, default=MOST, metavar="SHARE", help="rows of a feature that may differ [%(default)s]"
    )
    add_json(parser)


def _skew(args: Namespace) -> int:
    if not 0 <= args.most <= 1:
        message = f"--most is {args.most:g}; allowed are shares from 0 to 1"
        raise ConfigError(message)
    from features.served_skew import compare_served  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.console import progress_of  # noqa: PLC0415
    from pipeline.project.data_project import read_data  # noqa: PLC0415

    project = read_data(args.config, args.overrides)
    root = project.workspace / project.name
    with exclusive(root), progress_of("skew") as progress:
        report = compare_served(project.data, root / "skew-days", progress)
    over = report.over(args.most)
    verdict = f"over {args.most:g}: {', '.join(over)}" if over else f"no feature differs in more than {args.most:g}"
    respond(args, {**asdict(report), "over": over}, [*report.lines(), verdict])
    return QualityGateError.exit_code if over else 0


VERB = Verb(
    "skew",
    "compare the features of served requests with what the feature build computes for the same events",
    "moerank skew shop.yaml --most 0.01",
    _skew_arguments,
    _skew,
)
