"""The gRPC server object and its port: limits and encryption."""

import resource
from typing import Any

import grpc

from contract.errors import UnavailableError
from serving.grpc_server.handlers import CallStarter
from serving.grpc_server.security import server_credentials
from serving.grpc_server.server_settings import ServerSettings

AGE_GRACE_MS = 30_000
"""How long calls may go on on a connection that has come of age."""
PING_MS = 1_000
"""How often a client may ask whether the connection lives, without being taken for a flood."""
HANDSHAKE_MS = 10_000
"""How long a connection may take to say what it speaks."""
RESERVED_DESCRIPTORS = 256
"""Files that the server itself may have open."""
MOST_CONNECTIONS = 100_000


def build(settings: ServerSettings) -> grpc.Server:
    """A server without services, whose handlers are all of `serving.grpc_server.handlers`."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.max_allowed_incoming_connections", settings.max_connections or connections_that_fit()),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_MS),
        # Two servers on one port would share connections, and so hide that the first is still there; processes of one
        # server have a parent that looks for another first.
        ("grpc.so_reuseport", int(settings.processes > 1)),
    ]
    if settings.connection_idle_seconds:
        options.append(("grpc.max_connection_idle_ms", int(settings.connection_idle_seconds * 1000)))
    if settings.connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", AGE_GRACE_MS))
    executor: Any = CallStarter()
    return grpc.server(executor, options=options)


def connections_that_fit() -> int:
    """Connections that leave descriptors for bundles, the stores and the log, after the limit was raised to the most.

    At the limit nothing can be accepted or opened, and a server that tries again and again answers nobody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(max(hard - RESERVED_DESCRIPTORS, hard // 2), MOST_CONNECTIONS)


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
