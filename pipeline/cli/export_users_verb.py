"""The verb `export-users`: write every user's features to the store that servers with --user-store read first."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.paths import existing
from pipeline.cli.verb import Verb, add_json, respond

_PATIENCE_SECONDS = 10.0
"""How long a store may take for a thousand users."""


def _export_users_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="a bundle, or the features of one: runs/NAME/features")
    parser.add_argument("--to", required=True, metavar="URL", help="the user store, such as redis://127.0.0.1:6379/0")
    parser.add_argument("--expire", type=int, metavar="SECONDS", help="forget them after so long; default: never")
    add_json(parser)


def _export_users(args: Namespace) -> None:
    from pipeline.console import progress_of  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.graph.user_export import export_users  # noqa: PLC0415
    from serving.graph.users import UserStore  # noqa: PLC0415

    store = UserStore(args.to, seconds=_PATIENCE_SECONDS)
    with progress_of("export-users") as progress:
        report = lambda done, total: progress.live(f"{done:,} of {total:,}")  # noqa: E731 - shorter than a function
        users = export_users(existing(args.directory, "DIRECTORY"), store, args.expire, report)
    store.close()
    respond(args, {"users": users, "store": args.to}, [f"{users:,} users are in {args.to}"])


VERB = Verb(
    "export-users",
    "write every user's features to the store that servers with --user-store read first",
    "moerank export-users runs/movielens/store/movielens/1 --to redis://127.0.0.1:6379/0",
    _export_users_arguments,
    _export_users,
)
