"""The `split:` block of a recipe: which rows train, validate and test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contract.durations import Duration
from contract.settings import Settings


class SplitByTime(Settings):
    """The log's end is for testing, the time before it for validation, and the rest for training."""

    by: Literal["time"]
    valid: Duration
    """How much time before `test` is for validation."""
    test: Duration | None = None
    """How much of the log's end is for testing."""
    embargo: Duration | None = None
    """Rows that are less than this before the first row of the next split are left out."""


class SplitByUser(Settings):
    """Each user's rows in the order of time: the last are for testing, those before them for validation."""

    by: Literal["user_time"]
    valid: float = Field(gt=0)
    """A share of each user's rows below 1, or a number of rows: those before `test`."""
    test: float = Field(default=0, ge=0)
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
    valid: float = Field(gt=0, lt=1)
    """The share of rows for validation."""
    test: float = Field(default=0, ge=0, lt=1)
    """The share of rows for testing."""


SplitConfig = Annotated[SplitByTime | SplitByUser | SplitByExpression | SplitByHash, Field(discriminator="by")]
