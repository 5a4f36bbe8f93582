"""From an error to a gRPC status with google.rpc details, and back: one table, the attributes of the error leaves."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from contract import errors

DOMAIN = "moerank"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_SECONDS = 0.1
"""What a refused caller is told to wait at least."""
PUBLIC: tuple[type[errors.MoerankError], ...] = (
    errors.RequestError,
    errors.ModelNotFoundError,
    errors.UnavailableError,
    errors.OverloadedError,
    errors.DeadlineError,
    errors.AuthenticationError,
    errors.NotAllowedError,
)
"""Leaves whose messages are made for callers; the text of any other stays in the server's log."""


def status_of(error: BaseException, request_id: str) -> status_pb2.Status:
    """What a caller gets to see of an error.

    `request_id` is named where the text is withheld, so that an operator finds the log line.
    """
    if not isinstance(error, PUBLIC):
        text = f"the server failed to answer; its log says why under request id {request_id}"
        info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id})
        return _status(grpc.StatusCode.INTERNAL, text, [info])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    return _status(grpc.StatusCode[error.grpc_status], str(error), [info, *_details(error)])


def _details(error: errors.MoerankError) -> list[Message]:
    if isinstance(error, errors.RequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=str(error), reason=error.reason
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, errors.OverloadedError):
        delay = duration_pb2.Duration(nanos=int(RETRY_SECONDS * 1e9))
        return [error_details_pb2.RetryInfo(retry_delay=delay)]
    return []


def _status(code: grpc.StatusCode, text: str, details: Sequence[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=text[:MAX_TEXT])
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


MAX_TEXT = 1024
"""Bounds a message: details travel in headers, which are limited to 8 KiB."""

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
    """The leaf that a failed call stands for; the opposite of `status_of`."""
    code, told = call.code(), _Told(call)
    text = f"{target} answered {code.name}: {call.details()}"
    leaf = _LEAVES.get(told.reason) or _BY_CODE.get(code)
    error: errors.MoerankError
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        error = errors.RequestError(call.details() or text, field=told.field)
    elif leaf is errors.UnavailableError and not told.reason:
        message = f"no ranking server answers at {target} ({call.details()}); start one with `moerank serve STORE`"
        error = errors.UnavailableError(message)
    elif leaf is None or leaf is errors.MoerankError:
        error = errors.ServerError(text)
    else:
        error = leaf(text)
    error.request_id = told.request_id
    return error


def retry_delay(call: FailedCall) -> float | None:
    """After how many seconds a failed call may be tried again: as the server says, 0 at once, None never.

    A call that ends as CANCELLED although nobody cancelled it was under way when a server ended.
    """
    delay = _Told(call).delay
    if delay is not None:
        return delay
    return 0.0 if call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED} else None


class _Told:
    """The details of a failed call."""

    def __init__(self, call: FailedCall) -> None:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        self.delay: float | None = None
        for key, value in call.trailing_metadata() or ():
            for detail in status_pb2.Status.FromString(value).details if key == DETAILS_KEY else ():
                detail.Unpack(info)
                detail.Unpack(bad)
                if detail.Unpack(retry):
                    self.delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        self.reason = info.reason
        self.request_id = info.metadata.get("request_id", "")
        self.field = bad.field_violations[0].field if bad.field_violations else ""
