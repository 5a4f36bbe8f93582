"""The verb `unpublish`: take a version that is not the current one out of a store."""

from argparse import Namespace
from pathlib import Path

from pipeline.cli.store_arguments import is_url, version_arguments
from pipeline.cli.verb import Verb, respond


def _unpublish(args: Namespace) -> None:
    from serving.store import local_store  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415

    if is_url(args.store):
        RemoteStore(args.store).remove(args.model, args.version)
    else:
        local_store.remove(Path(args.store), args.model, args.version)
    respond(args, {"model": args.model, "removed": args.version}, [f"{args.model}: version {args.version} is gone"])


VERB = Verb(
    "unpublish",
    "take a version that is not the current one out of a store",
    "moerank unpublish runs/movielens/store movielens 1",
    version_arguments,
    _unpublish,
)
