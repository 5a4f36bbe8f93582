"""What a user writes under ``tune:``: which settings to search over, and how long."""

import math
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from contract.settings import Settings

_SEARCHED = ("model.", "train.")
_FIXED = ("train.seed", "train.early_stopping", "train.start_from", "train.warm", "train.tracking", "train.checkpoint")
"""Settings by which trials are compared, or that change no result."""
_TOO_SHORT = "a setting below `model` or `train` by its path, such as train.learning_rate"


class SearchRange(Settings):
    """The values of one setting: those between `low` and `high`, or one of `choices`."""

    low: int | float | None = None
    """The smallest value; with a whole `low` and `high`, all values are whole."""
    high: int | float | None = None
    """The largest value."""
    log: bool = False
    """Whether to draw evenly on a log scale, as suits rates."""
    choices: Annotated[tuple[JsonValue, ...], Field(min_length=2)] | None = None
    """The values to choose from, such as ``[[64], [64, 32]]``; a whole block such as a gate is a value too."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        numbers = self.low is not None and self.high is not None
        if numbers == (self.choices is not None) or (self.choices is not None and self.log):
            message = "give `low` and `high` (with `log` if you like), or `choices`"
            raise ValueError(message)
        if self.low is None or self.high is None:
            return self
        if not math.isfinite(self.low) or not math.isfinite(self.high) or self.low >= self.high:
            message = f"`low` must be less than `high`, and both finite; found {self.low} and {self.high}"
            raise ValueError(message)
        if self.log and self.low <= 0:
            message = f"on a log scale `low` must be above 0; found {self.low}"
            raise ValueError(message)
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all values between `low` and `high` are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: JsonValue) -> bool:
        """Whether a value can be drawn, written as it stands in `choices`.

        Example:
            >>> SearchRange(low=1, high=4).holds(2), SearchRange(low=1, high=4).holds(2.5)
            (True, False)
        """
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, (int, float)) or self.low is None or self.high is None:
            return False
        return self.low <= value <= self.high and (isinstance(value, int) or not self.is_whole)


class TuneConfig(Settings):
    """The search of `moerank tune`: trials by Optuna's TPE sampler, judged on the validation rows.

    Source: Akiba et al. 2019, "Optuna: A Next-generation Hyperparameter Optimization Framework"; of the sampler
    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4.
    """

    space: dict[str, SearchRange] = {}
    """The settings to search over by their path, such as ``train.learning_rate: {low: 1.0e-4, high: 0.01, log: true}``;
    all lie below `model` or `train`. Trials are ranked by ``train.early_stopping.metric``."""
    trials: Annotated[int, Field(ge=1)] = 30
    """How many trials in all; with more than there are, the same command goes on."""
    prune: bool = True
    """End a trial whose best epoch so far is below the median of earlier trials at that epoch."""
    before_pruning: Annotated[int, Field(ge=1)] = 5
    """How many trials run to their end before any is pruned; so many are drawn at random, too."""
    seeds: Annotated[int, Field(ge=2)] = 5
    """With how many seeds the winner and the recipe are trained and compared in the end."""

    @model_validator(mode="after")
    def _paths_can_be_searched(self) -> Self:
        for path in self.space:
            if not path.startswith(_SEARCHED) or path.endswith("."):
                message = f"space: {path!r} cannot be searched over; give {_TOO_SHORT}"
                raise ValueError(message)
            if path.startswith(_FIXED):
                message = f"space: {path!r} is the same in all trials, or they could not be compared; leave it out"
                raise ValueError(message)
        return self
