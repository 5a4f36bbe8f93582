"""The gRPC server object and its port: limits, encryption, authentication."""

from typing import Any

import grpc

from contract.errors import UnavailableError
from serving.grpc_server.rejection import Refusals
from serving.grpc_server.security import TokenCheck, Tokens, server_credentials
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_pool import CountingPool

AGE_GRACE_MS = 30_000
"""How long calls may go on on a connection that has come of age."""


def build(settings: ServerSettings, pool: CountingPool, refusals: Refusals, tokens: Tokens | None) -> grpc.Server:
    """A server without services."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_streams),
        # Two servers on one port would share connections, and so hide that the first is still there.
        ("grpc.so_reuseport", 0),
    ]
    if settings.connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", AGE_GRACE_MS))
    interceptors: list[Any] = [] if tokens is None else [TokenCheck(tokens, refusals)]
    # Of an executor, grpcio uses no more than the pool has.
    executor: Any = pool
    return grpc.server(executor, options=options, interceptors=interceptors)


def bind(server: grpc.Server, settings: ServerSettings) -> int:
    """Take the port; returns its number.

    Raises:
        ConfigError: the certificate or its key cannot be used.
        UnavailableError: the port cannot be had.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    try:
        if certificate is None or key is None:
            return server.add_insecure_port(settings.target)
        return server.add_secure_port(settings.target, server_credentials(certificate, key, settings.tls_client_ca))
    except RuntimeError as error:
        raise taken(settings) from error


def taken(settings: ServerSettings) -> UnavailableError:
    """What to say when the port cannot be had."""
    message = f"cannot listen on {settings.target}; another process may use the port, so choose one with --port"
    return UnavailableError(message)
