"""The verb `predict`: score raw rows with a bundle into a Parquet file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from pipeline.cli.evaluation_arguments import add_raw_rows, is_raw, raw_days
from pipeline.cli.paths import a_bundle
from pipeline.cli.verb import Verb, add_json, respond


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a published version or an exported run")
    add_raw_rows(parser)
    parser.add_argument("--out", type=Path, default=Path("predictions.parquet"), help="the file to write [%(default)s]")
    add_json(parser)


def _predict(args: Namespace) -> None:
    if not is_raw(args):
        message = "say which raw rows to predict on, with --events or with the recipe's own log and --from or --to"
        raise ConfigError(message)
    from pipeline.report.commands import predict_for_command  # noqa: PLC0415 - keeps `moerank --help` fast

    rows, notes = predict_for_command(a_bundle(args.bundle), raw_days(args), args.out, args.keep_days)
    lines = [*(f"note: {note}" for note in notes), f"{rows:,} rows: {args.out}"]
    respond(args, {"predictions": str(args.out), "rows": rows, "notes": notes}, lines)


VERB = Verb(
    "predict",
    "score raw rows with a bundle into a Parquet file, with their ids, labels and experts",
    "moerank predict runs/movielens/store/movielens/1 --events 'days/*.parquet' --out predictions.parquet",
    _predict_arguments,
    _predict,
)
