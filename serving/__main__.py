"""``python -m serving STORE``: the server alone, for images that hold nothing else."""

import argparse
import sys

from contract.errors import MoerankError
from serving.grpc_server.server import serve
from serving.grpc_server.server_settings import ServerSettings, add_arguments


def main() -> int:
    """Serve until told to stop; the exit code is that of the error, or 0."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Serve the models of a store over gRPC.")
    add_arguments(parser)
    try:
        serve(ServerSettings.read(vars(parser.parse_args())))
    except MoerankError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
