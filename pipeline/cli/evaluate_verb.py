"""The verb `evaluate`: judge a bundle on labelled rows: metrics with intervals, baselines, JSON and HTML report."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.evaluation_arguments import method_from
from pipeline.cli.paths import a_bundle, encoded_rows
from pipeline.cli.verb import Verb, add_json, respond


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a published version, or an exported run")
    parser.add_argument(
        "--data", type=Path, required=True, help="encoded rows to judge on, such as runs/NAME/features/test"
    )
    parser.add_argument("--train", type=Path, help="encoded training rows, for the popularity baseline and slices")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="where results go [%(default)s]")
    parser.add_argument("--replicates", type=int, help="bootstrap draws")
    parser.add_argument("--slice-by", default="", help="id features to slice by, with commas between them")
    add_json(parser)


def _evaluate(args: Namespace) -> None:
    a_bundle(args.bundle)
    encoded_rows(args.data, "--data")
    if args.train:
        encoded_rows(args.train, "--train")
    from pipeline.report.evaluate_and_report import evaluate_for_command  # noqa: PLC0415 - keeps `moerank --help` fast

    config = method_from(args.replicates) | {"slice_by": tuple(name for name in args.slice_by.split(",") if name)}
    made = evaluate_for_command(args.bundle, args.data, args.train, args.out, config)
    respond(args, made.as_json(), made.lines())


VERB = Verb(
    "evaluate",
    "judge a bundle on labelled rows: metrics with intervals, baselines, JSON and HTML report",
    "moerank evaluate runs/movielens/store/movielens/1 --data runs/movielens/features/test",
    _evaluate_arguments,
    _evaluate,
)
