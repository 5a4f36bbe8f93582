"""Who owns a column, the user, the item or the context, and so where its features hang and travel."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from contract.errors import ConfigError
from contract.schema import Side
from features.feature_config import FeaturesConfig


@dataclass(frozen=True)
class Ownership:
    """The side of every column of the timeline; `key_sets` are the tuples of keys that pair features hang on."""

    sides: dict[str, Side]
    user: str | None
    item: str | None

    def side(self, column: str, where: str, others: Iterable[str] = ()) -> Side:
        """The owner of a column; `others` are names that may stand in its place.

        Raises:
            ConfigError: there is no such column; the closest name is offered.
        """
        if column not in self.sides:
            tasks = list(others)
            close = difflib.get_close_matches(column, [*tasks, *self.sides], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.sides)}"
            named = f" and the tasks {', '.join(tasks)}" if tasks and not close else ""
            message = f"{where}: no column {'or task ' if tasks else ''}{column!r}; {hint}{named}"
            raise ConfigError(message)
        return self.sides[column]

    def group_side(self, keys: tuple[str, ...], where: str) -> Side:
        """The side of a feature that hangs on `keys`: one owner's, or a pair's."""
        sides = {self.side(key, where) for key in keys}
        if sides == {"user"} and self.user is not None:
            return "user"
        if sides == {"item"} and self.item is not None:
            return "item"
        return "pair"


def find_ownership(
    config: FeaturesConfig, events: tuple[str, ...], users: tuple[str, ...], items: tuple[str, ...]
) -> Ownership:
    """Assign every column of the log and of the entity tables to its owner; the log's own columns win a name."""
    sides: dict[str, Side] = {}
    sides.update(dict.fromkeys(items, "item"))
    sides.update(dict.fromkeys(users, "user"))
    sides.update(dict.fromkeys(events, "context"))
    for column in (config.events.user, *config.events.user_columns):
        if column is not None:
            _claim(sides, column, "user")
    for column in (config.events.item, *config.events.item_columns):
        if column is not None:
            _claim(sides, column, "item")
    return Ownership(sides, config.events.user, config.events.item)


def _claim(sides: dict[str, Side], column: str, side: Side) -> None:
    if column not in sides:
        message = f"data.events.{side}_columns names {column!r}, which the log does not have"
        raise ConfigError(message)
    sides[column] = side
