"""The command `moerank`: one verb per job, each a thin call of the function that the flow calls."""

import difflib
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version

from contract.errors import ConfigError, LostRankError, MoerankError
from contract.files import told
from pipeline.cli import (
    backfill_verb,
    backtest_verb,
    bench_endpoint_verb,
    check_verb,
    compare_verb,
    completion_verb,
    config_schema_verb,
    demo_verb,
    doctor_verb,
    drift_verb,
    evaluate_verb,
    export_users_verb,
    export_verb,
    features_verb,
    import_verb,
    init_verb,
    monitor_verb,
    point_verb,
    predict_verb,
    prune_verb,
    publish_verb,
    push_verb,
    rank_verb,
    run_verb,
    runs_verb,
    schedule_evaluation_verb,
    schedule_verb,
    serve_verb,
    skew_verb,
    store_verb,
    train_verb,
    tune_verb,
    unpublish_verb,
    versions_verb,
)
from pipeline.cli.look_first import look_first
from pipeline.cli.rank_failures import DEFECT_SECONDS, LOST_SECONDS, rank_of, speaks
from pipeline.cli.verb import Verb, end_at_once, never_collect
from pipeline.training.ranks_launch import INTERRUPTED, LAUNCHED

VERBS: tuple[Verb, ...] = (
    demo_verb.VERB,
    doctor_verb.VERB,
    import_verb.VERB,
    init_verb.VERB,
    check_verb.VERB,
    config_schema_verb.VERB,
    features_verb.VERB,
    train_verb.VERB,
    tune_verb.VERB,
    export_verb.VERB,
    publish_verb.VERB,
    run_verb.VERB,
    schedule_verb.VERB,
    schedule_evaluation_verb.VERB,
    monitor_verb.VERB,
    backfill_verb.VERB,
    store_verb.VERB,
    runs_verb.VERB,
    prune_verb.VERB,
    evaluate_verb.VERB,
    compare_verb.VERB,
    predict_verb.VERB,
    backtest_verb.VERB,
    drift_verb.VERB,
    serve_verb.VERB,
    skew_verb.VERB,
    rank_verb.VERB,
    versions_verb.VERB,
    point_verb.VERB,
    push_verb.VERB,
    unpublish_verb.VERB,
    export_users_verb.VERB,
    bench_endpoint_verb.VERB,
    completion_verb.VERB,
)
COMPLETING = "_ARGCOMPLETE"
"""Set by a shell that asks how a line may go on; see the verb `completion`."""
EPILOG = """exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 a quality gate refused,
4 an alarm, 130 interrupted
start with: moerank demo"""


def build_parser() -> ArgumentParser:
    """The parser with all verbs."""
    parser = ArgumentParser(
        prog="moerank",
        description="Train, evaluate and serve sparse mixture-of-experts rankers.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"moerank {version('moerank')}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        part = verbs.add_parser(
            verb.name,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            epilog=f"example:\n  {verb.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        verb.arguments(part)
        part.set_defaults(run=verb.run, brief=verb.brief)
    return parser


def suggest_verb(words: Sequence[str]) -> None:
    """End with the verb that a misspelled one was meant to be, if there is one."""
    names = [verb.name for verb in VERBS]
    if words and not words[0].startswith("-") and words[0] not in names:
        close = difflib.get_close_matches(words[0], names, n=1)
        if close:
            sys.stderr.write(
                f"moerank: no verb {words[0]!r}; did you mean: moerank {' '.join((close[0], *words[1:]))}\n"
            )
            sys.exit(ConfigError.exit_code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; an expected failure is one message on standard error and its exit code."""
    if COMPLETING in os.environ:
        import argcomplete  # noqa: PLC0415 - only where a shell asks

        argcomplete.autocomplete(build_parser())  # answers and ends the process
    words = sys.argv[1:] if argv is None else argv
    suggest_verb(words)
    args = build_parser().parse_args(words)
    if argv is None:
        end_at_once()
        if args.brief:
            never_collect()
    try:
        look_first(args)
        return args.run(args) or 0
    except MoerankError as error:
        seconds = LOST_SECONDS if isinstance(error, LostRankError) else 0.0
        return _fail(args.verb, str(error), error.exit_code, seconds)
    except KeyboardInterrupt:
        return _interrupted(args.verb)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a directory that may not be written.
        return _fail(args.verb, told(error), 1)
    except Exception as error:
        # A defect, whose trace is wanted; the other ranks' traces only tell that this one has ended.
        if speaks(f"{type(error).__name__}: {error}", DEFECT_SECONDS):
            raise
        return 1


def _interrupted(verb: str) -> int:
    told = "interrupted; the same command goes on where this one stopped"
    if LAUNCHED in os.environ and rank_of():
        # The launching command tells; that this rank has spoken silences those that lose it.
        speaks(told)
        return INTERRUPTED
    return _fail(verb, told, INTERRUPTED)


def _fail(verb: str, message: str, code: int, seconds: float = 0.0) -> int:
    """Say what went wrong, unless another rank of the job does; see `speaks`."""
    text = f"moerank {verb}{rank_of()}: {message}"
    if speaks(text, seconds):
        sys.stderr.write(f"{text}\n")
    return code
