"""The verb `serve`: answer ranking requests over gRPC with the models of a store."""

import logging
from argparse import Namespace

from pipeline.cli.verb import Verb
from serving.grpc_server.server_settings import ServerSettings, add_arguments


def _serve(args: Namespace) -> None:
    from serving.grpc_server.server import serve  # noqa: PLC0415 - keeps `moerank --help` fast

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(ServerSettings.read(vars(args)))


VERB = Verb(
    "serve",
    "answer ranking requests over gRPC with the models of a store",
    "moerank serve runs/movielens/store --port 50051",
    add_arguments,
    _serve,
)
