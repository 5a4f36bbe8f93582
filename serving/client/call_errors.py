"""From a failed call to the error that it stands for, for clients: the opposite of `serving.api.status`."""

from collections.abc import Iterable
from typing import Any, Protocol

import grpc

from contract import errors
from serving.stubs.moerank.wire.v1 import status_pb2

DETAILS_KEY = "grpc-status-details-bin"
_LEAVES: dict[str, type[errors.MoerankError]] = {
    leaf.reason: leaf
    for leaf in vars(errors).values()
    if isinstance(leaf, type) and issubclass(leaf, errors.MoerankError)
}
_BY_CODE: dict[grpc.StatusCode, type[errors.MoerankError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: errors.NotAllowedError,
    grpc.StatusCode.NOT_FOUND: errors.ModelNotFoundError,
    grpc.StatusCode.CANCELLED: errors.UnavailableError,
    grpc.StatusCode.ABORTED: errors.UnavailableError,
}


class FailedCall(Protocol):
    """What the exceptions of grpcio's clients, synchronous and asyncio, have in common."""

    def code(self) -> grpc.StatusCode:
        """The status."""

    def details(self) -> str | None:
        """The message."""

    def trailing_metadata(self) -> Iterable[tuple[str, Any]] | None:
        """Where the details travel."""


def error_of(call: FailedCall, target: str) -> errors.MoerankError:
    """The leaf that a failed call stands for."""
    code, details = call.code(), _StatusDetails(call)
    text = f"{target} answered {code.name}: {call.details()}"
    leaf = _LEAVES.get(details.reason) or _BY_CODE.get(code)
    error: errors.MoerankError
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        error = errors.RequestError(call.details() or text, field=details.field)
    elif leaf is errors.UnavailableError and not details.reason:
        message = f"no ranking server answers at {target} ({call.details()}); start one with `moerank serve STORE`"
        error = errors.UnavailableError(message)
    elif leaf is None or leaf is errors.MoerankError:
        error = errors.ServerError(text)
    else:
        error = leaf(text)
    error.request_id = details.request_id
    return error


def retry_delay(call: FailedCall) -> float | None:
    """After how many seconds a failed call may be tried again: as the server says, 0 at once, None never.

    A call that ends as CANCELLED although nobody cancelled it was under way when a server ended.
    """
    delay = _StatusDetails(call).delay
    if delay is not None:
        return delay
    return 0.0 if call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED} else None


class _StatusDetails:
    """The details of a failed call."""

    def __init__(self, call: FailedCall) -> None:
        self.reason = self.request_id = self.field = ""
        self.delay: float | None = None
        for key, value in call.trailing_metadata() or ():
            for detail in status_pb2.Status.FromString(value).details if key == DETAILS_KEY else ():
                self._read(detail.type_url.rpartition(".")[2], detail.value)

    def _read(self, kind: str, content: bytes) -> None:
        if kind == "ErrorInfo":
            info = status_pb2.ErrorInfo.FromString(content)
            self.reason, self.request_id = info.reason, info.metadata.get("request_id", "")
        elif kind == "BadRequest":
            violations = status_pb2.BadRequest.FromString(content).field_violations
            self.field = violations[0].field if violations else ""
        elif kind == "RetryInfo":
            delay = status_pb2.RetryInfo.FromString(content).retry_delay
            self.delay = delay.seconds + delay.nanos / 1e9
