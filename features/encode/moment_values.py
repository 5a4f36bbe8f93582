"""Dates and times as they came over the wire, as the numbers that columns of moments hold."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from contract.errors import RequestError

Value = Any
"""A number, a string, a boolean, None, or a list of these, as it came over the wire."""
EPOCH = dt.date(1970, 1, 1)


def as_days(values: Sequence[Value], where: str) -> list[Value]:
    """Days since 1970 in place of dates as text; everything else stays.

    Raises:
        RequestError: a text is not a date.
    """
    return [(_date(value, where) - EPOCH).days if isinstance(value, str) else value for value in values]


def as_milliseconds(values: Sequence[Value], where: str) -> list[Value]:
    """Milliseconds since 1970 in place of dates and times as text (without a zone: UTC); everything else stays.

    Raises:
        RequestError: a text is neither.
    """
    return [_milliseconds(value, where) if isinstance(value, str) else value for value in values]


def _date(text: str, where: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        message = f"{where} must be a date such as 2026-03-01, or whole days since 1970, but got {shown(text)}"
        raise RequestError(message, field=where) from error


def _milliseconds(text: str, where: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{where} must be a time such as 2026-03-01T12:00:00Z, or milliseconds since 1970, got {shown(text)}"
        raise RequestError(message, field=where) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)


def shown(value: Value) -> str:
    """The beginning of a value, for a message."""
    return repr(value[:40] if isinstance(value, str | list | tuple) else value)[:60]
