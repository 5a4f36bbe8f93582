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
    code = call.code()
    text = f"{target} answered {code.name}: {call.details()}"
    reason, field = _reason_and_field(call)
    leaf = _LEAVES.get(reason) or _BY_CODE.get(code)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return errors.RequestError(call.details() or text, field=field)
    if leaf is errors.UnavailableError and not reason:
        text = f"no ranking server answers at {target} ({call.details()}); start one with `moerank serve STORE`"
    return (leaf or errors.MoerankError)(text)


def _reason_and_field(call: FailedCall) -> tuple[str, str]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
                detail.Unpack(bad)
    return info.reason, bad.field_violations[0].field if bad.field_violations else ""
