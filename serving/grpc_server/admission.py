"""Who may take a thread: the one decision that every front asks for."""

from collections.abc import Mapping

from google.rpc import status_pb2

from contract.errors import AuthenticationError, MoerankError, OverloadedError, UnavailableError
from serving.api.status import status_of
from serving.grpc_server.security import Tokens
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import request_id_of
from serving.observe.telemetry import Telemetry

OVERLOADED = "the server has as much work as it can finish in time; try again later, or add replicas"
STOPPING = "the server is shutting down; another replica answers"


class Admission:
    """Refuses callers without a token, calls beyond what the pool can finish in time, and calls after the end began."""

    def __init__(self, pool: CountingPool, limit: int, tokens: Tokens | None, telemetry: Telemetry) -> None:
        """Admit calls while fewer than `limit` wait or run in the pool; count what is refused in `telemetry`."""
        self._pool = pool
        self._limit = limit
        self._tokens = tokens
        self._telemetry = telemetry
        self.stopping = False
        """From when on new calls are refused."""

    def refusal(self, metadata: Mapping[str, str | bytes]) -> status_pb2.Status | None:
        """The status of a call that may not take a thread, which is counted; None for a call that may."""
        return self.stranger(metadata) or self.overload(metadata)

    def stranger(self, metadata: Mapping[str, str | bytes]) -> status_pb2.Status | None:
        """As `refusal`, for callers without a valid token only."""
        if self._tokens is None:
            return None
        try:
            self._tokens.require(metadata)
        except AuthenticationError as error:
            return self._refuse(error, metadata)
        return None

    def overload(self, metadata: Mapping[str, str | bytes]) -> status_pb2.Status | None:
        """As `refusal`, for too much work or a server that ends only."""
        if self.stopping:
            return self._refuse(UnavailableError(STOPPING), metadata)
        if self._pool.pending >= self._limit:
            return self._refuse(OverloadedError(OVERLOADED), metadata)
        return None

    def _refuse(self, error: MoerankError, metadata: Mapping[str, str | bytes]) -> status_pb2.Status:
        self._telemetry.refused(error.reason)
        return status_of(error, request_id_of(metadata.items()))
