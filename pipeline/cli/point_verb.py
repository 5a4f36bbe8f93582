"""The verb `point`: make a version of a model the current one, to roll back or forward."""

from argparse import Namespace
from pathlib import Path

from pipeline.cli.store_arguments import is_url, version_arguments
from pipeline.cli.verb import Verb, respond


def _point(args: Namespace) -> None:
    from serving.store import local_store  # noqa: PLC0415 - keeps `moerank --help` fast
    from serving.store.model_source import open_source  # noqa: PLC0415
    from serving.store.remote_store import RemoteStore  # noqa: PLC0415

    before = open_source(args.store).current(args.model)
    if is_url(args.store):
        RemoteStore(args.store).point(args.model, args.version)
    else:
        local_store.point(Path(args.store), args.model, args.version)
    result = {"model": args.model, "before": before, "current": args.version}
    respond(args, result, [f"{args.model}: version {args.version} instead of {before}"])


VERB = Verb(
    "point",
    "make a version of a model the current one, to roll back or forward",
    "moerank point runs/movielens/store movielens 1",
    version_arguments,
    _point,
)
