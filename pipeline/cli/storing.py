"""Verbs that change what servers find: versions, point, push, unpublish, export-users."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.paths import existing
from pipeline.cli.verb import Verb, add_json, respond

_PATIENCE_SECONDS = 10.0
"""How long a store may take for a thousand users."""


def _store_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("store", help="the model store: a directory, or a URL such as s3://bucket/models")
    parser.add_argument("model", help="the model's name")


def _version_arguments(parser: ArgumentParser) -> None:
    _store_arguments(parser)
    parser.add_argument("version", type=int, help="the version's number")
    add_json(parser)


def _versions_arguments(parser: ArgumentParser) -> None:
    _store_arguments(parser)
    add_json(parser)


def _push_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="the local model store's directory")
    parser.add_argument("model", help="the model's name")
    parser.add_argument("url", help="the store to copy to, such as s3://bucket/models")
    parser.add_argument("--version", type=int, help="which version; default: the current one")
    add_json(parser)


def _versions(args: Namespace) -> None:
    from serving.store.model_source import open_source  # noqa: PLC0415 - keeps `moerank --help` fast

    source = open_source(args.store)
    current, found = source.current(args.model), source.versions(args.model)
    lines = [f"{args.model}: {version}{' (current)' if version == current else ''}" for version in found]
    respond(args, {"model": args.model, "versions": found, "current": current}, lines)


def _point(args: Namespace) -> None:
    from serving.store import local_store  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.store.model_source import open_source  # noqa: PLC0415
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415

    before = open_source(args.store).current(args.model)
    if _is_url(args.store):
        RemoteStore(args.store).point(args.model, args.version)
    else:
        local_store.point(Path(args.store), args.model, args.version)
    result = {"model": args.model, "before": before, "current": args.version}
    respond(args, result, [f"{args.model}: version {args.version} instead of {before}"])


def _push(args: Namespace) -> None:
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415 - keeps `moerank --help` fast

    version = RemoteStore(args.url).push(args.store, args.model, args.version)
    result = {"model": args.model, "current": version, "store": args.url}
    respond(args, result, [f"{args.model}: version {version} is the current one of {args.url}"])


def _unpublish(args: Namespace) -> None:
    from serving.store import local_store  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415

    if _is_url(args.store):
        RemoteStore(args.store).remove(args.model, args.version)
    else:
        local_store.remove(Path(args.store), args.model, args.version)
    respond(args, {"model": args.model, "removed": args.version}, [f"{args.model}: version {args.version} is gone"])


def _export_users_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="a bundle, or the features of one: runs/NAME/features")
    parser.add_argument("--to", required=True, metavar="URL", help="the user store, such as redis://127.0.0.1:6379/0")
    parser.add_argument("--expire", type=int, metavar="SECONDS", help="forget them after so long; default: never")
    add_json(parser)


def _export_users(args: Namespace) -> None:
    from pipeline.console import stage  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.graph.user_export import export_users  # noqa: PLC0415
    from serving.graph.users import UserStore  # noqa: PLC0415

    store = UserStore(args.to, seconds=_PATIENCE_SECONDS)
    with stage("export-users") as progress:
        report = lambda done, total: progress.live(f"{done:,} of {total:,}")  # noqa: E731 - shorter than a function
        users = export_users(existing(args.directory, "DIRECTORY"), store, args.expire, report)
    store.close()
    respond(args, {"users": users, "store": args.to}, [f"{users:,} users are in {args.to}"])


def _is_url(store: str) -> bool:
    return "://" in store


VERBS = (
    Verb(
        "versions",
        "list the versions of a model and say which one is served",
        "moerank versions runs/movielens/store movielens",
        _versions_arguments,
        _versions,
    ),
    Verb(
        "point",
        "make a version of a model the current one, to roll back or forward",
        "moerank point runs/movielens/store movielens 1",
        _version_arguments,
        _point,
    ),
    Verb(
        "push",
        "copy a version to a store behind a URL and make it the current one there",
        "moerank push runs/movielens/store movielens s3://bucket/models",
        _push_arguments,
        _push,
    ),
    Verb(
        "unpublish",
        "take a version that is not the current one out of a store",
        "moerank unpublish runs/movielens/store movielens 1",
        _version_arguments,
        _unpublish,
    ),
    Verb(
        "export-users",
        "write every user's features to the store that servers with --user-store read first",
        "moerank export-users runs/movielens/store/movielens/1 --to redis://127.0.0.1:6379/0",
        _export_users_arguments,
        _export_users,
    ),
)
