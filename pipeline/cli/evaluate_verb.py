"""The verb `evaluate`: evaluate a bundle, or another tool's scores, on labelled rows."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from pipeline.cli.evaluation_arguments import (
    add_columns,
    add_raw_rows,
    add_slices,
    is_raw,
    method_from,
    raw_days,
    slices_from,
    some,
)
from pipeline.cli.paths import a_bundle, encoded_rows
from pipeline.cli.verb import Verb, add_json, respond


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="a published version or exported run")
    parser.add_argument("--data", type=Path, help="encoded rows to judge on, such as runs/NAME/features/test")
    parser.add_argument("--predictions", metavar="FILE", help="evaluate another tool's labels and scores")
    parser.add_argument(
        "--engine", choices=("here", "spark"), default="here", help="where --predictions is read [here]"
    )
    parser.add_argument("--master", metavar="URL", help="the cluster of --engine spark [local[*]]")
    add_columns(parser)
    add_raw_rows(parser)
    parser.add_argument("--train", type=Path, help="encoded training rows, for the popularity baseline and slices")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="where results go [%(default)s]")
    parser.add_argument("--replicates", type=int, help="bootstrap draws")
    add_slices(parser)
    parser.add_argument("--lists-by", metavar="FEATURE", help="what is ranked together: item, or an id feature [user]")
    parser.add_argument("--processes", type=int, help="processes that score side by side [1]")
    at = "list lengths of NDCG, MRR, MAP, precision and recall; several with commas, or one after the other [10]"
    parser.add_argument("--at", type=some, action="extend", default=[], metavar="K", help=at)
    parser.add_argument(
        "--importance", type=int, nargs="?", const=5, default=0, metavar="N", help="shuffle each feature N times [5]"
    )
    add_json(parser)


def _evaluate(args: Namespace) -> None:
    given = [name for name, there in (("--data", args.data), ("--predictions", args.predictions)) if there]
    given += ["--events, --from or --to"] if is_raw(args) else []
    if len(given) != 1:
        what = " and ".join(given) or "none of them"
        message = f"say what to judge on with one of --data, --events (or --from) and --predictions; found {what}"
        raise ConfigError(message)
    if (args.bundle is None) == (args.predictions is None):
        message = "name a BUNDLE to score the rows with, or a file of scores with --predictions"
        raise ConfigError(message)
    if (args.engine == "spark" and not args.predictions) or (args.master and args.engine != "spark"):
        message = "--engine spark reads --predictions, and --master is its cluster; name both, or neither"
        raise ConfigError(message)
    if args.predictions and (args.train or args.importance or args.key):
        what = "--train" if args.train else "--importance" if args.importance else "--key"
        message = f"{what} needs a BUNDLE's own features; a file of scores has none, so leave it out"
        raise ConfigError(message)
    from pipeline.evaluation.prediction_file import parse_columns  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.report.commands import evaluate_for_command, evaluate_predictions  # noqa: PLC0415
    from pipeline.report.evaluate_and_report import evaluation_settings  # noqa: PLC0415

    settings = evaluation_settings(_settings(args))
    if args.predictions:
        master = (args.master or "local[*]") if args.engine == "spark" else None
        result = evaluate_predictions(args.predictions, args.out, settings, parse_columns(args.columns), master)
    else:
        bundle = a_bundle(args.bundle)
        data = encoded_rows(args.data, "--data") if args.data else None
        train = encoded_rows(args.train, "--train") if args.train else None
        result = evaluate_for_command(bundle, data or raw_days(args), train, args.out, settings, args.keep_days)
    respond(args, result.as_json(), result.lines())


def _settings(args: Namespace) -> dict[str, object]:
    settings = slices_from(args)
    if args.at:
        settings["at"] = tuple(args.at)
    settings |= {name: getattr(args, name) for name in ("lists_by", "processes") if getattr(args, name) is not None}
    return settings | {"importance": args.importance} | method_from(args.replicates)


VERB = Verb(
    "evaluate",
    "evaluate a bundle on labelled rows: metrics with intervals, baselines, JSON and HTML report",
    "moerank evaluate runs/movielens/store/movielens/1 --events 'days/*.parquet' --from 2026-11-19",
    _evaluate_arguments,
    _evaluate,
)
