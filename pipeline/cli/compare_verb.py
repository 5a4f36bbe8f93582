"""The verb `compare`: test whether models differ on the same rows."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.evaluation_arguments import (
    add_columns,
    add_raw_rows,
    add_slices,
    is_raw,
    method_from,
    raw_days,
    slices_from,
)
from pipeline.cli.paths import a_bundle, encoded_rows
from pipeline.cli.verb import Verb, add_json, respond


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="a bundle or a prediction file")
    parser.add_argument("b", type=Path, metavar="B", nargs="+", help="others, each of which is compared with A")
    parser.add_argument("--data", type=Path, help="encoded rows to score bundles on")
    add_columns(parser)
    add_raw_rows(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        help="where comparison.json and the page comparison.html go [%(default)s]",
    )
    parser.add_argument("--replicates", type=int, help="bootstrap draws")
    add_slices(parser, "columns of A's rows")
    add_json(parser)


def _compare(args: Namespace) -> None:
    models = [args.a, *args.b]
    for path in models:
        a_bundle(path)
    data = encoded_rows(args.data, "--data") if args.data else None
    from pipeline.evaluation.prediction_file import parse_columns  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.report.commands import compare_for_command  # noqa: PLC0415
    from pipeline.report.evaluate_and_report import evaluation_settings  # noqa: PLC0415

    result, page = compare_for_command(
        models,
        raw_days(args) if is_raw(args) else data,
        args.out,
        evaluation_settings(slices_from(args) | method_from(args.replicates)),
        parse_columns(args.columns),
    )
    respond(args, result.as_json() | {"page": str(page)}, [*result.lines(), f"page: {page}"])


VERB = Verb(
    "compare",
    "test whether models differ on the same rows: JSON and a page",
    "moerank compare runs/a/predictions.parquet runs/b/predictions.parquet",
    _compare_arguments,
    _compare,
)
