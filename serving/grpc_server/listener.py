"""What listens on the server's port: grpcio, or a front in Rust that spares most of the work a call."""

from collections.abc import Mapping
from typing import Protocol

from serving.grpc_server.handlers import Front
from serving.grpc_server.health_and_reflection import Aside
from serving.grpc_server.rejection import Refusals
from serving.grpc_server.security import Tokens
from serving.grpc_server.server_builder import bind, build
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import UnaryHandler

FLUSH_SECONDS = 0.2
"""How long answers may still be on the wire when the last call has been answered."""


class Listener(Protocol):
    """Takes calls from the wire, admits or refuses them, and has a pool answer them."""

    @property
    def port(self) -> int:
        """The port's number; taken, but not answered on before the start."""

    def start(self) -> None:
        """Begin to answer."""

    def refuse_new(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; those under way have so long. Returns at once."""

    def close(self, seconds: float) -> None:
        """Let answers of the last `seconds` reach the wire, then end all connections."""


class GrpcListener:
    """Listens through grpcio."""

    def __init__(
        self,
        settings: ServerSettings,
        methods: Mapping[str, UnaryHandler],
        pool: CountingPool,
        refusals: Refusals,
        aside: Aside,
    ) -> None:
        """Take the port.

        Raises:
            ConfigError: a file of certificates or tokens cannot be used.
            UnavailableError: the port cannot be had.
        """
        tokens = None if settings.token_file is None else Tokens(settings.token_file)
        self._server = build(settings, pool, refusals, tokens)
        self._server.add_generic_rpc_handlers((Front(methods, pool, settings.admitted, refusals),))
        aside.add_to(self._server, describe=settings.reflection)
        self.port = bind(self._server, settings)

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def refuse_new(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; those under way have so long. Returns at once."""
        self._server.stop(grace_seconds)

    def close(self, seconds: float) -> None:
        """Let answers of the last `seconds` reach the wire, then end all connections."""
        self._server.stop(seconds).wait()
