"""Listens through pygrpc-native: HTTP/2 and gRPC in Rust, outside the interpreter's lock; the methods are the same.

The front offers unary methods without encryption. Health and reflection, which stream, and calls to methods that nobody
knows go on to a grpcio server behind it, on a Unix socket that only this user can open. Its connections are held to
their limits from outside (`serving.grpc_server.connection_limits`).
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from google.rpc import status_pb2
from pygrpc_native import EVENT_CALL, NativeGrpcFront

from serving.api.status import DETAILS_KEY, status_of
from serving.graph.context import CallContext, Clock
from serving.grpc_server.accepted_sockets import SUPPORTED
from serving.grpc_server.admission import Admission
from serving.grpc_server.connection_limits import ConnectionLimits, ping_seconds
from serving.grpc_server.health_and_reflection import Health, Reflection
from serving.grpc_server.listener import GrpcListener
from serving.grpc_server.server_builder import connections_that_fit, taken
from serving.grpc_server.server_settings import ServerSettings
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import UnaryHandler, request_id_of

LOG = logging.getLogger("moerank.server")
BATCH = 64
"""Calls that are taken from the front at once; under load that spares turns at the interpreter's lock."""
Metadata = Sequence[tuple[str, str | bytes]]


class NativeListener:
    """Listens through the front in Rust."""

    def __init__(
        self,
        settings: ServerSettings,
        methods: Mapping[str, UnaryHandler],
        pool: CountingPool,
        admission: Admission,
        health: Health,
        reflection: Reflection | None,
    ) -> None:
        """Take the port.

        Raises:
            UnavailableError: the port cannot be had.
        """
        self._settings = settings
        self._pool = pool
        self._admission = admission
        self._methods = tuple(methods.values())
        try:
            self._front = NativeGrpcFront(
                settings.target,
                [(path, False) for path in methods],
                call_details=True,
                max_concurrent_streams=settings.max_streams,
                keepalive_time_ms=int(ping_seconds(settings.connection_idle_seconds) * 1000),
                keepalive_permit_without_calls=False,
                reuse_port=settings.processes > 1,
            )
        except OSError as error:
            raise taken(settings) from error
        self._folder = TemporaryDirectory(prefix="moerank-")
        self._inner = GrpcListener(settings, {}, pool, admission, health, reflection)
        socket = Path(self._folder.name) / "inner.sock"
        self._inner.server.add_insecure_port(f"unix:{socket}")
        self._front.set_fallback(str(socket))
        self._limits: ConnectionLimits | None = None
        if SUPPORTED:
            most = settings.max_connections or connections_that_fit()
            self._limits = ConnectionLimits(self.port, most, settings.connection_idle_seconds)
        self._open: set[int] = set()
        """Calls that were admitted and that their callers have not given up."""
        self._receiver = threading.Thread(target=self._receive, name="moerank-receiver", daemon=True)

    @property
    def port(self) -> int:
        """The port's number."""
        return self._front.bound_port

    @property
    def without_message(self) -> int:
        """Calls whose message has not come yet, as far as they are seen here."""
        return self._inner.without_message

    def start(self) -> None:
        """Begin to answer."""
        self._inner.start()
        self._front.start()
        self._receiver.start()
        if self._limits is not None:
            self._limits.start()

    def refuse_new(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; those under way have so long. Returns at once."""
        self._inner.refuse_new(grace_seconds)

    def close(self, seconds: float) -> None:
        """Let answers of the last `seconds` reach the wire, then end all connections."""
        self._inner.close(seconds)
        time.sleep(seconds)
        if self._limits is not None:
            self._limits.close()
        self._front.close()
        self._receiver.join()
        self._folder.cleanup()

    def _receive(self) -> None:
        while (events := self._front.recv_batch_details(BATCH)) is not None:
            for kind, number, place, body, _, details in events:
                if kind != EVENT_CALL or body is None or details is None:
                    self._open.discard(number)
                    continue
                metadata, _, remaining = details
                expires = None if remaining is None else time.monotonic() + remaining
                try:
                    refusal = self._refusal(body, metadata)
                    if refusal is None:
                        self._open.add(number)
                        self._pool.submit(self._answer, number, self._methods[place], body, metadata, expires)
                    else:
                        self._fail(number, refusal)
                except Exception as error:  # one call must not end the thread that takes all others
                    LOG.exception("a call could not be taken")
                    self._fail(number, status_of(error, request_id_of(metadata)))

    def _refusal(self, body: bytes, metadata: Metadata) -> status_pb2.Status | None:
        """The status of a call that is not admitted."""
        limit = self._settings.max_message_bytes
        if len(body) > limit:
            text = f"Received message larger than max ({len(body)} vs. {limit})"
            return status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=text)
        return self._admission.refusal(dict(metadata))

    def _answer(
        self, number: int, method: UnaryHandler, body: bytes, metadata: Metadata, expires: float | None
    ) -> None:
        given_up = number not in self._open
        self._open.discard(number)
        if given_up and (expires is None or time.monotonic() < expires):
            return
        clock = Clock(int(self._pool.waited() * 1e9))
        answer = method(body, CallContext(request_id_of(metadata), expires, clock, dict(metadata)))
        if isinstance(answer, bytes):
            self._front.respond(number, answer)
        else:
            self._fail(number, answer)

    def _fail(self, number: int, status: status_pb2.Status) -> None:
        details = [(DETAILS_KEY, status.SerializeToString())] if status.details else None
        self._front.fail(number, status.code, status.message, details)
