"""The verb `push`: copy a version to a store behind a URL and make it the current one there."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb, add_json, respond


def _push_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="the local model store's directory")
    parser.add_argument("model", help="the model's name")
    parser.add_argument("url", help="the store to copy to, such as s3://bucket/models")
    parser.add_argument("--version", type=int, help="which version; default: the current one")
    add_json(parser)


def _push(args: Namespace) -> None:
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415 - keeps `moerank --help` fast

    version = RemoteStore(args.url).push(args.store, args.model, args.version)
    result = {"model": args.model, "current": version, "store": args.url}
    respond(args, result, [f"{args.model}: version {version} is the current one of {args.url}"])


VERB = Verb(
    "push",
    "copy a version to a store behind a URL and make it the current one there",
    "moerank push runs/movielens/store movielens s3://bucket/models",
    _push_arguments,
    _push,
)
