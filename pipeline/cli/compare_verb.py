"""The verb `compare`: test whether two models differ on the same rows."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.evaluation_arguments import add_columns, add_raw_rows, is_raw, method_from, raw_days
from pipeline.cli.paths import a_bundle, encoded_rows
from pipeline.cli.verb import Verb, add_json, respond


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="a bundle or a prediction file")
    parser.add_argument("b", type=Path, metavar="B", help="the other one")
    parser.add_argument("--data", type=Path, help="encoded rows to score bundles on")
    add_columns(parser)
    add_raw_rows(parser)
    parser.add_argument("--out", type=Path, help="where comparison.json goes")
    parser.add_argument("--replicates", type=int, help="bootstrap draws")
    add_json(parser)


def _compare(args: Namespace) -> None:
    a_bundle(args.a)
    a_bundle(args.b)
    data = encoded_rows(args.data, "--data") if args.data else None
    from pipeline.evaluation.compare import compare  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.evaluation.prediction_file import parse_columns  # noqa: PLC0415
    from pipeline.report.evaluate_and_report import evaluation_settings  # noqa: PLC0415

    result = compare(
        args.a,
        args.b,
        data,
        args.out,
        config=evaluation_settings(method_from(args.replicates)),
        columns=parse_columns(args.columns),
        days=raw_days(args) if is_raw(args) else None,
    )
    respond(args, result.model_dump(mode="json"), result.lines())


VERB = Verb(
    "compare",
    "test whether two models differ on the same rows",
    "moerank compare runs/a/predictions.parquet runs/b/predictions.parquet",
    _compare_arguments,
    _compare,
)
