"""The verb `push`: copy a version to a store behind a URL and make it the current one there."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.store_arguments import add_delta
from pipeline.cli.verb import Verb, add_json, respond


def _push_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="the local model store's directory")
    parser.add_argument("model", help="the model's name")
    parser.add_argument("url", help="the store to copy to, such as s3://bucket/models")
    parser.add_argument("--version", type=int, help="which version; default: the current one")
    add_delta(parser)
    add_json(parser)


def _push(args: Namespace) -> None:
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415 - keeps `moerank --help` fast

    if args.delta:
        from pipeline.release.table_rows import table_rows  # noqa: PLC0415

        base = None if args.delta is True else args.delta
        shipment = RemoteStore(args.url).push_delta(args.store, args.model, args.version, base, table_rows)
        version, shipped = shipment.version, {"delta": shipment._asdict()}
        lines = [f"{args.model}: {shipment}"]
    else:
        version, shipped, lines = RemoteStore(args.url).push(args.store, args.model, args.version), {}, []
    result = {"model": args.model, "current": version, "store": args.url, **shipped}
    respond(args, result, [*lines, f"{args.model}: version {version} is the current one of {args.url}"])


VERB = Verb(
    "push",
    "copy a version to a store behind a URL and make it the current one there",
    "moerank push runs/movielens/store movielens s3://bucket/models",
    _push_arguments,
    _push,
)
