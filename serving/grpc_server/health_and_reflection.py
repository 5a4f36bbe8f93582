"""Health, which waits for nothing and takes no thread, and reflection, which takes a few threads of its own."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from contract.errors import DeadlineError, OverloadedError
from serving.api.status import status_of
from serving.grpc_server.grpcio_call import GrpcioCall, MessageTimer

STREAMS = 4
"""Reflection streams at once; tools open one, ask, and close it."""
STREAM_SECONDS = 30.0
"""How long a reflection stream may stay open."""
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""The same messages under the name that newer tools try first."""
Status = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = Status.SERVING, Status.NOT_SERVING


class Health:
    """Whether each service, and each model, serves. Readers take one reference and never wait."""

    def __init__(self) -> None:
        self._statuses: Mapping[str, int] = {"": NOT_SERVING}
        self._draining = False
        self._watchers: dict[GrpcioCall, _Watcher] = {}
        self._changing = threading.Lock()

    def set(self, serving: Mapping[str, bool]) -> None:
        """Say by name who serves; the empty name stands for the whole server. After `drain`, nobody does."""
        with self._changing:
            statuses = {name: SERVING if each and not self._draining else NOT_SERVING for name, each in serving.items()}
            # Who was known and has gone is not unknown: callers would take that for a misspelt name.
            self._statuses = {**dict.fromkeys(self._statuses, NOT_SERVING), **statuses}
        for watcher in tuple(self._watchers.values()):
            watcher.tell(self._of(watcher.service))

    def drain(self) -> None:
        """Say NOT_SERVING of everybody from now on."""
        self._draining = True
        self.set({})

    def handlers(self, timer: MessageTimer) -> dict[str, Any]:
        """For grpcio, by path; `timer` ends calls that never say what they ask for."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        prefix = f"/{health.SERVICE_NAME}"
        return {
            f"{prefix}/Check": unary(_Immediate(self._check, timer)),
            f"{prefix}/List": unary(_Immediate(self._list, timer)),
            f"{prefix}/Watch": stream(_Immediate(self._watch, timer)),
        }

    def _of(self, service: str) -> int:
        return self._statuses.get(service, Status.SERVICE_UNKNOWN)

    def _check(self, call: GrpcioCall, body: bytes) -> None:
        service = _service(body)
        status = self._of(service)
        if status == Status.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in sorted(self._statuses))
            message = f"no service or model {service[:80]!r} here; known are {known}"[:1024]
            call.fail(status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message=message))
        else:
            call.answer(_encoded(status))

    def _list(self, call: GrpcioCall, _: bytes) -> None:
        statuses = {name: Status(status=status) for name, status in self._statuses.items()}
        call.answer(health_pb2.HealthListResponse(statuses=statuses).SerializeToString())

    def _watch(self, call: GrpcioCall, body: bytes) -> None:
        watcher = self._watchers[call] = _Watcher(call, _service(body))
        call.when_over(lambda: self._watchers.pop(call, None))
        watcher.tell(self._of(watcher.service))


class _Watcher:
    """Sends one status at a time, and always the newest; a caller who does not read holds nobody up."""

    def __init__(self, call: GrpcioCall, service: str) -> None:
        self.service = service
        self._call = call
        self._lock = threading.Lock()
        self._newest = self._sent = -1
        self._sending = False

    def tell(self, status: int) -> None:
        with self._lock:
            self._newest = status
            if self._sending or status == self._sent:
                return
            self._sending, self._sent = True, status
        self._call.send(_encoded(status), self._on_the_wire)

    def _on_the_wire(self) -> None:
        with self._lock:
            self._sending = False
            newest = self._newest
        self.tell(newest)


class _Immediate:
    """Answers as soon as the message has come, on the thread that polls."""

    def __init__(self, answer: Callable[[GrpcioCall, bytes], None], timer: MessageTimer) -> None:
        self._answer, self._timer = answer, timer

    def __call__(self, *_: object) -> None:
        """Never called: `begin` takes the call."""

    def begin(self, call: GrpcioCall, _: Callable[[], object]) -> None:
        self._timer.add(call)

        def received(message: bytes | None) -> None:
            self._timer.discard(call)
            if message is not None:
                self._answer(call, message)

        call.receive(received)


class Reflection:
    """Describes the services to tools such as grpcurl, to a few at a time and for a bounded time."""

    def __init__(self, services: Sequence[str]) -> None:
        """Describe these services, health and reflection."""
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        self._servicer: Any = reflection.ReflectionServicer(names)
        self._pool = ThreadPoolExecutor(STREAMS, thread_name_prefix="moerank-reflection")
        self._open = threading.BoundedSemaphore(STREAMS)
        late = DeadlineError(f"a reflection stream may stay open for {STREAM_SECONDS:g} seconds")
        self._timer = MessageTimer(STREAM_SECONDS, status_of(late, ""), STREAMS)

    def handlers(self) -> dict[str, Any]:
        """For grpcio, by path."""
        handler = grpc.stream_stream_rpc_method_handler(
            self,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return {f"/{name}/ServerReflectionInfo": handler for name in (REFLECTION_V1, reflection.SERVICE_NAME)}

    def __call__(self, requests: Any, context: grpc.ServicerContext) -> Any:
        """Answer a stream of questions about the services."""
        return self._servicer.ServerReflectionInfo(requests, context)

    def begin(self, call: GrpcioCall, run: Callable[[], object]) -> None:
        """As `Behaviour.begin`."""
        if not self._open.acquire(blocking=False):
            error = OverloadedError(f"the server answers {STREAMS} reflection streams at once; try again later")
            call.fail(status_of(error, ""))
            return
        self._timer.add(call)

        def answer() -> None:
            try:
                run()
            finally:
                self._timer.discard(call)
                self._open.release()

        self._pool.submit(answer)

    def close(self) -> None:
        """End the threads."""
        self._timer.close()
        self._pool.shutdown(wait=False)


def _service(body: bytes) -> str:
    """The name that is asked for; what is no such message asks for the whole server, as an empty one does."""
    try:
        return health_pb2.HealthCheckRequest.FromString(body).service
    except DecodeError:
        return ""


def _encoded(status: int) -> bytes:
    return Status(status=status).SerializeToString()
