"""``python -m serving.client.probe HOST:PORT``: whether a server says SERVING, for containers; exit code 0 or 1."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 3.0


def healthy(
    target: str, service: str = "", credentials: grpc.ChannelCredentials | None = None, seconds: float = SECONDS
) -> bool:
    """Whether a service, or with no name the server as a whole, is SERVING; None for plaintext."""
    with grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe once."""
    parser = argparse.ArgumentParser(prog="python -m serving.client.probe", description="Ask a server for its health.")
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("--service", default="", help="such as moerank.v1.RankingService; default: the whole server")
    parser.add_argument("--tls-ca", type=Path, help="PEM authority of the server's certificate; default: plaintext")
    parser.add_argument("--tls-certificate", type=Path, help="PEM certificate to show, where the server wants one")
    parser.add_argument("--tls-key", type=Path, help="PEM key of that certificate")
    args = parser.parse_args(arguments)
    credentials = None
    if args.tls_ca is not None:
        paths = (args.tls_ca, args.tls_key, args.tls_certificate)
        credentials = grpc.ssl_channel_credentials(*(None if path is None else path.read_bytes() for path in paths))
    if healthy(args.target, args.service, credentials):
        return 0
    sys.stderr.write(f"{args.target} does not say that {args.service or 'it'} is serving\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
