"""How candidates are ordered: formulas by name, which request takes which, and whether it explores."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from contract.errors import ConfigError, RequestError
from contract.schema import TaskSpec
from contract.score import Score, ScoreConfig, default_score
from contract.settings import Settings

DEFAULT = "default"
"""The name of a formula that has none."""


class _Explores(Settings):
    """What all ways to explore have."""

    depth: int = Field(default=0, ge=0)
    """How many of the first places are explored, the others being in the order of the score; 0: all."""

    @property
    def version(self) -> str:
        """Identifies the policy in answers and logs: its name and settings."""
        settings = self.model_dump()
        return " ".join([settings.pop("method"), *(f"{name}={value:g}" for name, value in settings.items())])


class EpsilonGreedy(_Explores):
    """Each place goes to a candidate drawn uniformly from those left with probability `epsilon`, else to the best."""

    method: Literal["epsilon"]
    epsilon: float = Field(gt=0, le=1)
    """The share of places that are drawn."""


class PlackettLuce(_Explores):
    """Each place goes to one of the candidates left with probability proportional to exp(score / `temperature`).

    R. L. Plackett, "The analysis of permutations", 1975.
    """

    method: Literal["plackett_luce"]
    temperature: float = Field(gt=0, le=1e6)
    """How much is explored: near 0 the order is that of the scores, and a large one makes it random."""


Exploration = Annotated[EpsilonGreedy | PlackettLuce, Field(discriminator="method")]


class RankingPolicy(Settings):
    """Several formulas: a request uses the one it names, else the one `by` gives for its context, else `default`."""

    formulas: dict[str, ScoreConfig] = Field(min_length=1)
    """The formulas by name."""
    default: str = DEFAULT
    """The name of the formula that is used where nothing else says."""
    by: dict[str, dict[str, str]] = {}
    """By feature of the context and its value, the name of a formula, such as ``{surface: {home: engage}}``; the first
    feature that has the request's value counts."""
    explore: Exploration | None = None
    """How places are drawn to explore; null: the best candidates come first."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = [self.default, *(name for choices in self.by.values() for name in choices.values())]
        missing = sorted(set(named) - self.formulas.keys())
        if missing:
            message = f"no formula {', '.join(missing)}; there are {', '.join(self.formulas)}"
            raise ValueError(message)
        return self

    @classmethod
    def of(cls, config: "ScoreConfig | RankingPolicy") -> Self:
        """A single formula as a policy; a policy as it is."""
        return cls(formulas={DEFAULT: config}) if isinstance(config, ScoreConfig) else cls(**dict(config))


class BoundPolicy:
    """A policy bound to a model's tasks."""

    def __init__(
        self,
        config: ScoreConfig | RankingPolicy | None,
        tasks: Sequence[TaskSpec],
        context: Collection[str] | None = None,
    ) -> None:
        """Check the formulas against the tasks that there are, and `by` against the names of the `context`, if given.

        None is `default_score`.

        Raises:
            ConfigError: a formula names a task that the model does not predict, or `by` a feature that no context has.
        """
        self.config = RankingPolicy.of(default_score(tasks) if config is None else config)
        if context is not None:
            require_context(self.config, context)
        self.scores = {name: _bound(name, formula, tasks) for name, formula in self.config.formulas.items()}

    @property
    def explore(self) -> EpsilonGreedy | PlackettLuce | None:
        """How rankings explore; None: they do not."""
        return self.config.explore

    @property
    def default(self) -> Score:
        """The formula of requests that name no other."""
        return self.scores[self.config.default]

    def name_for(self, context: Mapping[str, Any], requested: str = "") -> str:
        """The name of a request's formula.

        Raises:
            RequestError: the request names a formula that there is not.
        """
        if requested:
            if requested not in self.scores:
                message = f"this model has no score formula {requested[:80]!r}; allowed are: {', '.join(self.scores)}"
                raise RequestError(message, field="score")
            return requested
        for feature, choices in self.config.by.items():
            value = context.get(feature)
            if value is not None and str(value) in choices:
                return choices[str(value)]
        return self.config.default


def require_context(config: ScoreConfig | RankingPolicy | None, context: Collection[str]) -> None:
    """Refuse a policy that chooses by what requests never have in their context, and so never chooses.

    Raises:
        ConfigError: naming the feature, and those that there are.
    """
    for name in config.by if isinstance(config, RankingPolicy) else ():
        if name not in context:
            allowed = ", ".join(sorted(context)) or "none"
            message = f"formulas are chosen by {name!r}, which no request has in its context; allowed are: {allowed}"
            raise ConfigError(message)


def _bound(name: str, formula: ScoreConfig, tasks: Sequence[TaskSpec]) -> Score:
    try:
        return Score(formula, tasks)
    except ConfigError as error:
        message = f"formula {name!r}: {error}"
        raise ConfigError(message) from error
