"""From an error to a gRPC status with google.rpc details, by the attributes of its leaf; `call_errors` goes back."""

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from contract import errors

DOMAIN = "moerank"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_SECONDS = 0.1
"""How long a refused caller should wait at least."""
MAX_TEXT, MAX_FIELD = 1024, 256
"""Bound a message and the name in it, in bytes: both travel in headers, which callers limit to 8 KiB, the message twice
and, where it is not ASCII, in three times its bytes."""
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
            field=_cut(error.field, MAX_FIELD), description=_cut(str(error), MAX_TEXT), reason=error.reason
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, errors.OverloadedError):
        delay = duration_pb2.Duration(nanos=int(RETRY_SECONDS * 1e9))
        return [error_details_pb2.RetryInfo(retry_delay=delay)]
    return []


def _status(code: grpc.StatusCode, text: str, details: Sequence[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=_cut(text, MAX_TEXT))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str, most: int) -> str:
    """So many bytes at most: a name that a caller made up may be as long as a message."""
    return text.encode()[:most].decode(errors="ignore")
