"""What an operator chooses to serve: models, and formulas of their combined scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from contract.errors import ConfigError
from contract.ranking_policy import RankingPolicy
from contract.score import ScoreConfig
from contract.settings import problems_of
from serving.store.local_store import require_name

ONE, SEVERAL = "one formula", "several formulas"
Scores = dict[str, ScoreConfig | RankingPolicy]


def _form(given: object) -> str:
    """Which of the two is meant, so that what is wrong is told of that one alone."""
    return SEVERAL if isinstance(given, dict) and "formulas" in given else ONE


_SCORES: TypeAdapter[Scores] = TypeAdapter(
    dict[
        str,
        Annotated[
            Annotated[ScoreConfig, Tag(ONE)] | Annotated[RankingPolicy, Tag(SEVERAL)],
            Discriminator(_form),
        ],
    ]
)


@dataclass(frozen=True)
class ModelSelection:
    """A model to serve; `version` None follows the store's pointer."""

    model: str
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``NAME`` or ``NAME@VERSION``.

        Raises:
            ConfigError: neither of the two.
        """
        name, at, version = text.partition("@")
        require_name(name)
        if at and not (version.isascii() and version.isdigit() and int(version) > 0):
            message = f"{text!r} pins no version: write NAME or NAME@VERSION, such as movies@3"
            raise ConfigError(message)
        return cls(name, int(version) if at else None)


def read_scores(path: Path | None) -> Scores:
    """Formulas, or policies with named formulas, by model name from a JSON file; nothing without a path.

    Raises:
        ConfigError: unreadable, or neither ``{"MODEL": {"form": ..., "weights": {"TASK": number}}}`` nor ``{"MODEL":
            {"formulas": {"NAME": {"weights": ...}}, "default": "NAME"}}``.
    """
    if path is None:
        return {}
    try:
        return _SCORES.validate_json(path.read_bytes())
    except OSError as error:
        message = f"the score file {path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    except ValidationError as error:
        message = f"the score file {path} is wrong: {problems_of(error)}"
        raise ConfigError(message) from error
