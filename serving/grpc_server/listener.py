"""What listens on the server's port: grpcio, or a front in Rust that spares most of the work a call."""

import logging
from collections.abc import Mapping
from typing import Protocol

from serving.grpc_server.admission import Admission
from serving.grpc_server.handlers import GrpcRouter, UnaryBehaviour, message_timer
from serving.grpc_server.health_and_reflection import Health, Reflection
from serving.grpc_server.server_builder import bind, build
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import UnaryHandler

LOG = logging.getLogger("moerank.server")
FLUSH_SECONDS = 0.2
"""How long answers may still be on the wire when the last call has been answered."""

CLOSE_SECONDS = 5.0
"""How long grpcio may take to end what is left: it may lose count of a call, and would wait for it for ever."""


class Listener(Protocol):
    """Takes calls from the wire, admits or refuses them, and has a pool answer them."""

    @property
    def port(self) -> int:
        """The port's number; taken, but not answered on before the start."""

    @property
    def without_message(self) -> int:
        """Calls whose message has not come yet."""

    def start(self) -> None:
        """Begin to answer."""

    def refuse_new(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; those under way have so long. Returns at once."""

    def close(self, seconds: float) -> None:
        """Let answers of the last `seconds` reach the wire, then end all connections."""


class GrpcListener:
    """Listens through grpcio. Without methods it answers for health and reflection alone, behind another front."""

    def __init__(
        self,
        settings: ServerSettings,
        methods: Mapping[str, UnaryHandler],
        pool: CountingPool,
        admission: Admission,
        health: Health,
        reflection: Reflection | None,
    ) -> None:
        """Prepare; `take_port` or `take_socket` comes next."""
        self.server = build(settings)
        self._settings = settings
        self._admission = admission
        self._timer = message_timer(settings.message_seconds)
        behaviours = {path: UnaryBehaviour(method, pool, admission, self._timer) for path, method in methods.items()}
        others = health.handlers(self._timer) | ({} if reflection is None else reflection.handlers())
        self.server.add_generic_rpc_handlers((GrpcRouter(behaviours, others, admission),))
        self.port = 0

    def take_port(self) -> None:
        """Take the port of the settings.

        Raises:
            ConfigError: a file of certificates cannot be used.
            UnavailableError: the port cannot be had.
        """
        self.port = bind(self.server, self._settings)

    @property
    def without_message(self) -> int:
        """Calls whose message has not come yet."""
        return len(self._timer)

    def start(self) -> None:
        """Begin to answer."""
        self.server.start()

    def refuse_new(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; those under way have so long. Returns at once."""
        self._admission.stopping = True
        self.server.stop(grace_seconds)

    def close(self, seconds: float) -> None:
        """Let answers of the last `seconds` reach the wire, then end all connections."""
        if not self.server.stop(seconds).wait(seconds + CLOSE_SECONDS):
            LOG.warning(
                "calls that were ended are still counted after %g seconds; the server ends without them", seconds
            )
        self._timer.close()
