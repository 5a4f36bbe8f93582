# ruff: noqa: SLF001 the reason stands below
"""One call as grpcio's completion queue knows it, so that a message is read before any thread is taken.

grpcio's synchronous server hands a call to its executor as soon as the headers have come; the thread then waits for
the message. A caller who opens calls and never sends would so hold every thread, and health with them. grpcio has no
public way around that, so this file, and no other, uses `grpc._server`: it starts the same batches on the same queue,
without waiting. Its functions are pinned with grpcio's version, and `tests/serving/grpc_server/test_message_first.py`
holds them to their behaviour.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from google.rpc import status_pb2
from grpc import StatusCode, _server
from grpc._cython import cygrpc  # type: ignore[attr-defined] # compiled; no stubs

from serving.api.status import DETAILS_KEY

LOG = logging.getLogger("moerank.server")
FOREVER_SECONDS = 3e8
"""grpcio states the absence of a deadline as an enormous time."""
NO_MESSAGE = "the call ended without a request message; send exactly one"


class GrpcioCall:
    """A call whose headers have come. Nothing here waits; callbacks run on the thread that polls the queue."""

    def __init__(self, event: Any, state: Any) -> None:
        """Wrap what grpcio hands to its executor."""
        self._event, self._state = event, state

    @cached_property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent beside the message."""
        return dict(self._event.invocation_metadata or ())

    @property
    def expires(self) -> float | None:
        """The caller's deadline on the clock of `time.monotonic`, if there is one."""
        remaining = self._event.call_details.deadline - time.time()
        return None if remaining > FOREVER_SECONDS else time.monotonic() + remaining

    @property
    def active(self) -> bool:
        """Whether the caller still waits for something."""
        return bool(_server._is_rpc_state_active(self._state))

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Ask for the message; `then` gets it, or None if the call ended without one."""
        state = self._state

        def received(event: Any) -> Any:
            message: bytes | None = _server._serialized_request(event)
            with state.condition:
                finished = _server._possibly_finish_call(state, _server._RECEIVE_MESSAGE_TOKEN)
            self._guarded(then, message)
            if message is None and self.active:
                self.fail(status_pb2.Status(code=StatusCode.UNIMPLEMENTED.value[0], message=NO_MESSAGE))
            return finished

        self._start((cygrpc.ReceiveMessageOperation(0),), _server._RECEIVE_MESSAGE_TOKEN, received)

    def answer(self, message: bytes) -> None:
        """End the call well."""
        _server._status(self._event, self._state, message)

    def send(self, message: bytes, then: Callable[[], None]) -> None:
        """Send one message of a stream; `then` is told when it is on the wire, before which no other may be sent."""
        state = self._state
        operations = [cygrpc.SendMessageOperation(message, 0)]
        with state.condition:
            if state.initial_metadata_allowed:
                operations.insert(0, _server._get_initial_metadata_operation(state, None))
                state.initial_metadata_allowed = False

        def sent(_: Any) -> Any:
            with state.condition:
                finished = _server._possibly_finish_call(state, _server._SEND_MESSAGE_TOKEN)
            self._guarded(then)
            return finished

        self._start(tuple(operations), _server._SEND_MESSAGE_TOKEN, sent)

    def fail(self, status: status_pb2.Status) -> None:
        """End the call with a status and its details."""
        with self._state.condition:
            if not self.active:
                return
            if status.details:
                self._state.trailing_metadata = ((DETAILS_KEY, status.SerializeToString()),)
            self._state.aborted = True
            _server._abort(self._state, self._event.call, status.code, status.message.encode())

    def when_over(self, then: Callable[[], object]) -> None:
        """Have `then` called when the call is over, however it ends; at once if it is over."""
        with self._state.condition:
            if self._state.callbacks is not None:
                self._state.callbacks.append(then)
                return
        then()

    def _start(self, operations: tuple[Any, ...], token: str, tag: Callable[[Any], Any]) -> None:
        with self._state.condition:
            if self.active:
                self._event.call.start_server_batch(operations, tag)
                self._state.due.add(token)

    def _guarded(self, then: Callable[..., None], *values: Any) -> None:
        """An error must not end the thread that polls the queue for all calls."""
        try:
            then(*values)
        except Exception:
            LOG.exception("a call could not be taken")
            self.fail(status_pb2.Status(code=StatusCode.INTERNAL.value[0], message="the server failed; see its log"))


class MessageTimer:
    """Ends calls whose message, or whose end, does not come in time."""

    def __init__(self, seconds: float, status: status_pb2.Status, most: int) -> None:
        """Give each call so many seconds before it ends with `status`; of more than `most`, the oldest end earlier."""
        self._seconds, self._status, self._most = seconds, status, most
        self._waiting: dict[GrpcioCall, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moerank-message-timer", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, call: GrpcioCall) -> None:
        """Begin to wait."""
        self._waiting[call] = time.monotonic() + self._seconds

    def discard(self, call: GrpcioCall) -> None:
        """What was waited for has come."""
        self._waiting.pop(call, None)

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(self._seconds / 4, 0.5)):
            now = time.monotonic()
            # Calls stand in the order in which they came.
            calls = list(self._waiting.copy().items())
            surplus = max(len(calls) - self._most, 0)
            for place, (call, end) in enumerate(calls):
                if place >= surplus and end > now:
                    break
                self.discard(call)
                call.fail(self._status)
