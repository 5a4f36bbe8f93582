"""What verbs that call a server need to know about the way to it: encryption and who is calling."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import ConfigError

if TYPE_CHECKING:
    import grpc

TOKEN = "MOERANK_TOKEN"  # noqa: S105 the name of a variable


def add_connection(parser: ArgumentParser) -> None:
    """``--token`` and the files of TLS."""
    parser.add_argument("--token", default=os.environ.get(TOKEN), help=f"bearer token [{TOKEN}]")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="PEM authority of the server: use TLS")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM certificate to show the server")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM key of that certificate")


def metadata_from(args: Namespace) -> tuple[tuple[str, str], ...]:
    """What goes with every call."""
    return (("authorization", f"Bearer {args.token}"),) if args.token else ()


def credentials_from(args: Namespace) -> "grpc.ChannelCredentials | None":
    """TLS if an authority is given; None for plaintext.

    Raises:
        ConfigError: a file cannot be read, or a certificate or key stands alone.
    """
    if (args.tls_certificate is None) != (args.tls_key is None) or (args.tls_key and not args.tls_ca):
        message = "--tls-certificate and --tls-key belong together, and need --tls-ca"
        raise ConfigError(message)
    if args.tls_ca is None:
        return None
    import grpc  # noqa: PLC0415 - keeps `moerank --help` fast

    return grpc.ssl_channel_credentials(_content(args.tls_ca), _content(args.tls_key), _content(args.tls_certificate))


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
