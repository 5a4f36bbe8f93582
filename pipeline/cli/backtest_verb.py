"""The verb `backtest`: versions of a model on the same raw days, one table of version by day."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from contract.errors import ConfigError
from pipeline.cli.evaluation_arguments import add_raw_rows, is_raw, raw_days
from pipeline.cli.paths import a_bundle
from pipeline.cli.verb import Verb, add_json, respond


def _backtest_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="published versions")
    add_raw_rows(parser)
    add_json(parser)


def _backtest(args: Namespace) -> None:
    if not is_raw(args):
        message = "say which days to score, with --events or with the recipes' own log and --from or --to"
        raise ConfigError(message)
    for path in args.bundles:
        a_bundle(path)
    from pipeline.console import progress_of  # noqa: PLC0415 - keeps `moerank --help` fast
    from pipeline.evaluation.backtest import backtest  # noqa: PLC0415
    from pipeline.evaluation.measure import EvaluateConfig  # noqa: PLC0415

    with progress_of("backtest") as progress:
        result = backtest(args.bundles, raw_days(args), EvaluateConfig(), progress)
    respond(args, result.model_dump(mode="json"), result.lines())


VERB = Verb(
    "backtest",
    "score versions on the same raw days: a table of version by day",
    "moerank backtest runs/shop/store/shop/1 runs/shop/store/shop/2 --from 2026-11-01 --to 2026-11-25",
    _backtest_arguments,
    _backtest,
)
