"""Routes calls on grpcio to what answers them: methods, health, reflection, or a refusal."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grpc
from google.rpc import status_pb2

from contract.errors import DeadlineError
from serving.api.status import status_of
from serving.graph.context import CallContext, Clock
from serving.grpc_server.admission import Admission
from serving.grpc_server.grpcio_call import GrpcioCall, MessageTimer
from serving.grpc_server.security import OPEN_TO_ALL
from serving.grpc_server.thread_pool import CountingPool
from serving.grpc_server.unary_handlers import UnaryHandler, request_id_of

MOST_WITHOUT_MESSAGE = 10_000
"""Calls without a message that are held at most; each takes some tens of kilobytes."""
LATE_MESSAGE = "the request message did not come in time; send it with the call"


class Behaviour(Protocol):
    """What answers calls to one method. It is begun on the thread that polls, and so must not wait."""

    def begin(self, call: GrpcioCall, run: Callable[[], object]) -> None:
        """Take a call whose headers have come; `run` is grpcio's own way to answer, on a thread of the caller's."""


class CallStarter:
    """Stands where grpcio expects a thread pool: begins calls without taking a thread."""

    def submit(self, run: Callable[..., object], *arguments: Any) -> "CallStarter":
        """Begin a call; grpcio passes what a thread would run."""
        _, event, state, behaviour = arguments[:4]
        behaviour.begin(GrpcioCall(event, state), lambda: run(*arguments))
        return self

    def add_done_callback(self, _: Callable[[Any], object]) -> None:
        """Grpcio counts calls for a limit that is not used here."""


class GrpcRouter(grpc.GenericRpcHandler):  # type: ignore[type-arg] # subscripting it fails at run time
    """Finds what answers a call by its path; refuses at once who may not call, or what would wait too long."""

    def __init__(
        self,
        methods: Mapping[str, "UnaryBehaviour"],
        others: Mapping[str, Any],
        admission: Admission,
    ) -> None:
        """Route to methods that take a thread of the pool, and to `others`, handlers that do not."""
        self._methods = {path: grpc.unary_unary_rpc_method_handler(method) for path, method in methods.items()}
        self._others = dict(others)
        self._admission = admission

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Called by grpcio's polling thread for each call."""
        path = handler_call_details.method
        handler = self._methods.get(path)
        metadata = dict(handler_call_details.invocation_metadata or ())
        if handler is not None:
            refusal = self._admission.refusal(metadata)
        else:
            handler = self._others.get(path)
            refusal = None if path.startswith(OPEN_TO_ALL) else self._admission.stranger(metadata)
        return handler if refusal is None else grpc.unary_unary_rpc_method_handler(_Refusal(refusal))


class UnaryBehaviour:
    """One method: waits for the message without a thread, is admitted, and answers on a thread of the pool."""

    def __init__(self, method: UnaryHandler, pool: CountingPool, admission: Admission, timer: MessageTimer) -> None:
        """Answer with `method`."""
        self._method, self._pool, self._admission, self._timer = method, pool, admission, timer

    def __call__(self, *_: object) -> None:
        """Never called: `begin` takes the call."""

    def begin(self, call: GrpcioCall, _: Callable[[], object]) -> None:
        """As `Behaviour.begin`."""
        self._timer.add(call)

        def received(message: bytes | None) -> None:
            self._timer.discard(call)
            if message is None:
                return
            # Many may have been admitted by their headers while none had come this far.
            refusal = self._admission.overload(call.metadata)
            if refusal is None:
                self._pool.submit(self._answer, call, message)
            else:
                call.fail(refusal)

        call.receive(received)

    def _answer(self, call: GrpcioCall, message: bytes) -> None:
        expires, active = call.expires, call.active
        metadata = call.metadata
        context = CallContext(request_id_of(metadata.items()), expires, Clock(int(self._pool.waited() * 1e9)), metadata)
        if not active and not context.expired:
            return
        answer = self._method(message, context)
        if isinstance(answer, bytes):
            call.answer(answer)
        else:
            call.fail(answer)


class _Refusal:
    """Ends a call before its message has come."""

    def __init__(self, status: status_pb2.Status) -> None:
        self._status = status

    def __call__(self, *_: object) -> None:
        """Never called: `begin` takes the call."""

    def begin(self, call: GrpcioCall, _: Callable[[], object]) -> None:
        call.fail(self._status)


def message_timer(seconds: float) -> MessageTimer:
    """Ends calls whose message does not come in time, as callers are told."""
    return MessageTimer(seconds, status_of(DeadlineError(LATE_MESSAGE), ""), MOST_WITHOUT_MESSAGE)
