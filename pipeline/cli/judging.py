"""Verbs that judge models offline: evaluate, compare."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

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

    config = _method(args.replicates) | {"slice_by": tuple(name for name in args.slice_by.split(",") if name)}
    made = evaluate_for_command(args.bundle, args.data, args.train, args.out, config)
    respond(args, made.as_json(), made.lines())


def _method(replicates: int | None) -> dict[str, object]:
    return {} if replicates is None else {"replicates": replicates}


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="a bundle or a prediction file")
    parser.add_argument("b", type=Path, metavar="B", help="the other one")
    parser.add_argument("--data", type=Path, help="encoded rows to score bundles on")
    parser.add_argument("--out", type=Path, help="where comparison.json goes")
    parser.add_argument("--replicates", type=int, help="bootstrap draws")
    add_json(parser)


def _compare(args: Namespace) -> None:
    a_bundle(args.a)
    a_bundle(args.b)
    if args.data:
        encoded_rows(args.data, "--data")
    from pipeline.evaluation.compare import compare  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.report.evaluate_and_report import evaluation_settings  # noqa: PLC0415

    result = compare(args.a, args.b, args.data, args.out, config=evaluation_settings(_method(args.replicates)))
    respond(args, result.model_dump(mode="json"), result.lines())


VERBS = (
    Verb(
        "evaluate",
        "judge a bundle on labelled rows: metrics with intervals, baselines, JSON and HTML report",
        "moerank evaluate runs/movielens/store/movielens/1 --data runs/movielens/features/test",
        _evaluate_arguments,
        _evaluate,
    ),
    Verb(
        "compare",
        "test whether two models differ on the same rows",
        "moerank compare runs/a/predictions.parquet runs/b/predictions.parquet",
        _compare_arguments,
        _compare,
    ),
)
