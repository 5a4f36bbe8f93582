"""The `split:` block of a recipe: which rows train, validate and test."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from contract.durations import Duration, is_duration
from contract.settings import Settings

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LENGTHS = "`by: time` takes lengths of time, such as 12h or 7d"


def _share(value: Any) -> Any:
    if is_duration(value):
        message = "this split is sized by a share of rows, such as 0.1; a length of time goes with `by: time`"
        raise ValueError(message)
    return value


_Share = Annotated[float, BeforeValidator(_share)]


class SplitByTime(Settings):
    """The log's end is for testing, the time before it for validation, and the rest for training."""

    by: Literal["time"]
    valid: Duration
    """How much time before `test` is for validation."""
    test: Duration | None = None
    """How much of the log's end is for testing."""
    embargo: Duration | None = None
    """Rows that are less than this before the first row of the next split are left out."""

    @field_validator("valid", "test", mode="before")
    @classmethod
    def _no_day_and_no_share(cls, value: Any) -> Any:
        if _DAY.match(str(value)):
            message = f"{_LENGTHS}; a day goes with `by: expression`, such as valid: time >= '{value}'"
            raise ValueError(message)
        if isinstance(value, (int, float)):
            message = f"{_LENGTHS}; shares go with `by: random` and, of each user's rows, with `by: user_time`"
            raise ValueError(message)  # noqa: TRY004 - what pydantic takes for a wrong value
        return value


class SplitByUser(Settings):
    """Each user's rows in the order of time: the last are for testing, those before them for validation."""

    by: Literal["user_time"]
    valid: _Share = Field(gt=0)
    """A share of each user's rows below 1, or a number of rows: those before `test`."""
    test: _Share = Field(default=0, ge=0)
    """A share of each user's rows below 1, or a number of rows: the last ones."""
    embargo: Duration | None = None
    """Rows that are less than this before the first row of the next split are left out."""

    @model_validator(mode="after")
    def _shares_or_numbers(self) -> "SplitByUser":
        given = [value for value in (self.valid, self.test) if value]
        if not (all(value < 1 for value in given) or all(value.is_integer() for value in given)):
            message = (
                f"valid {self.valid:g} and test {self.test:g} must both be shares below 1, or whole numbers of rows"
            )
            raise ValueError(message)
        return self


class SplitByExpression(Settings):
    """Rows for which `test` holds, then rows for which `valid` holds, then training rows."""

    by: Literal["expression"]
    valid: str
    """A condition on the other rows, for validation."""
    test: str | None = None
    """A condition on rows, for testing."""
    embargo: Duration | None = None
    """Rows that are less than this before the first row of the next split are left out."""


class SplitByHash(Settings):
    """A random split, stable between builds: by the hash of the row's keys and time."""

    by: Literal["random"]
    valid: _Share = Field(gt=0, lt=1)
    """The share of rows for validation."""
    test: _Share = Field(default=0, ge=0, lt=1)
    """The share of rows for testing."""


SplitConfig = Annotated[SplitByTime | SplitByUser | SplitByExpression | SplitByHash, Field(discriminator="by")]
