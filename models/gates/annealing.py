"""Numbers that change with the training step: regularisation weights and temperatures."""

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from contract.settings import Settings


class Schedule(Settings):
    """A number that changes with the training step."""

    shape: Literal["linear", "exponential"] = "linear"
    """``linear`` interpolates the number itself, ``exponential`` its logarithm; both ends must then be positive."""
    start: float = Field(ge=0)
    """The number up to `first_step`."""
    end: float = Field(ge=0)
    """The number from `last_step` on."""
    first_step: int = Field(default=0, ge=0)
    """The training step at which the change begins."""
    last_step: int = Field(ge=1)
    """The training step at which it ends."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last_step <= self.first_step:
            message = f"last_step is {self.last_step} but must be above first_step, {self.first_step}"
            raise ValueError(message)
        if self.shape == "exponential" and min(self.start, self.end) <= 0:
            message = f"an exponential schedule needs positive ends, not {self.start} and {self.end}: use linear"
            raise ValueError(message)
        return self

    def at(self, step: int) -> float:
        """Give the number at a training step."""
        share = min(max((step - self.first_step) / (self.last_step - self.first_step), 0.0), 1.0)
        if self.shape == "linear":
            return self.start + (self.end - self.start) * share
        return math.exp(math.log(self.start) * (1 - share) + math.log(self.end) * share)


def _above_zero(value: float | Schedule) -> float | Schedule:
    lowest = min(value.start, value.end) if isinstance(value, Schedule) else value
    if lowest <= 0:
        message = f"a temperature must be above 0 at every step, not {lowest}"
        raise ValueError(message)
    return value


Temperature = Annotated[float | Schedule, AfterValidator(_above_zero)]
"""A divisor of logits: a constant above 0, or a schedule that stays above it."""


def value_at(value: float | Schedule, step: int) -> float:
    """Give a constant, or a schedule's number at a training step."""
    return value.at(step) if isinstance(value, Schedule) else value
