"""The verb `versions`: list the versions of a model and say which one is served."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.store_arguments import store_arguments
from pipeline.cli.verb import Verb, add_json, respond


def _versions_arguments(parser: ArgumentParser) -> None:
    store_arguments(parser)
    add_json(parser)


def _versions(args: Namespace) -> None:
    from serving.store.model_source import open_source  # noqa: PLC0415 - keeps `moerank --help` fast

    source = open_source(args.store)
    current, versions = source.current(args.model), source.versions(args.model)
    lines = [f"{args.model}: {version}{' (current)' if version == current else ''}" for version in versions]
    respond(args, {"model": args.model, "versions": versions, "current": current}, lines)


VERB = Verb(
    "versions",
    "list the versions of a model and say which one is served",
    "moerank versions runs/movielens/store movielens",
    _versions_arguments,
    _versions,
)
