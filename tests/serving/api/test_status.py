"""An error becomes a gRPC status with details, and the client's status becomes that error again."""

from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from contract import errors
from serving.api.status import DETAILS_KEY, MAX_TEXT, PUBLIC, RETRY_SECONDS, status_of
from serving.client.call_errors import error_of, retry_delay


class Failed:
    """A failed call as a client's exception shows it."""

    def __init__(self, status: status_pb2.Status, *, details: bool = True) -> None:
        self._status, self._details = status, details

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self._status.code)

    def details(self) -> str:
        return self._status.message

    def trailing_metadata(self) -> list[tuple[str, Any]]:
        return [("other", b"\xff"), (DETAILS_KEY, self._status.SerializeToString())] if self._details else []


def made(leaf: type[errors.MoerankError]) -> errors.MoerankError:
    return leaf("why", field="items") if leaf is errors.RequestError else leaf("why")


@pytest.mark.parametrize("leaf", PUBLIC)
def test_a_caller_gets_back_the_error_that_the_server_raised(leaf: type[errors.MoerankError]) -> None:
    back = error_of(Failed(status_of(made(leaf), "r-1")), "here:1")
    assert type(back) is leaf
    assert back.request_id == "r-1"
    assert "why" in str(back)


def test_a_refused_field_is_named() -> None:
    back = error_of(Failed(status_of(made(errors.RequestError), "r-1")), "here:1")
    assert isinstance(back, errors.RequestError)
    assert (back.field, str(back)) == ("items", "why")


@pytest.mark.parametrize("error", [ValueError("secret"), errors.ConfigError("secret"), errors.IntegrityError("secret")])
def test_what_is_not_meant_for_callers_stays_in_the_log(error: Exception) -> None:
    status = status_of(error, "r-2")
    assert b"secret" not in status.SerializeToString()
    back = error_of(Failed(status), "here:1")
    assert type(back) is errors.ServerError
    assert "r-2" in str(back)


def test_a_full_server_says_when_to_come_again_and_an_absent_one_may_be_asked_at_once() -> None:
    full, wrong = (status_of(made(leaf), "") for leaf in (errors.OverloadedError, errors.RequestError))
    assert retry_delay(Failed(full)) == pytest.approx(RETRY_SECONDS)
    assert retry_delay(Failed(wrong)) is None
    absent = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="refused")
    assert retry_delay(Failed(absent, details=False)) == 0.0


def test_a_status_without_details_is_told_by_its_code() -> None:
    absent = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="refused")
    assert "no ranking server answers at here:1" in str(error_of(Failed(absent, details=False), "here:1"))
    late = status_pb2.Status(code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert type(error_of(Failed(late, details=False), "here:1")) is errors.DeadlineError
    odd = status_pb2.Status(code=grpc.StatusCode.DATA_LOSS.value[0])
    assert type(error_of(Failed(odd, details=False), "here:1")) is errors.ServerError


def test_a_long_text_is_cut_because_headers_are_limited() -> None:
    status = status_of(errors.UnavailableError("x" * 5000), "r")
    assert len(status.message) == MAX_TEXT


def test_the_reason_stands_in_the_error_info() -> None:
    info = error_details_pb2.ErrorInfo()
    assert status_of(made(errors.DeadlineError), "r").details[0].Unpack(info)
    assert (info.reason, info.domain) == (errors.DeadlineError.reason, "moerank")


@pytest.mark.parametrize("letter", ["k", "я", "💥"])
def test_a_status_fits_into_headers_however_long_the_name_that_a_caller_made_up(letter: str) -> None:
    error = errors.RequestError(f"context.{letter * 1_000_000} is not known", field=f"context.{letter * 1_000_000}")
    status = status_of(error, "r-1")
    sent = len(quote(status.message)) + 4 * len(status.SerializeToString()) // 3
    assert sent < 8192 - 512
    back = error_of(Failed(status), "here:1")
    assert isinstance(back, errors.RequestError)
    assert back.field.startswith(f"context.{letter}")
