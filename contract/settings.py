"""The base of every configuration block: frozen, keyword-only, unknown keys refused."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """A block of configuration; wrong keys and wrong types are refused.

    A text under a field is its description: editors show it, and docs/configuration.md prints it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


def renamed(data: Any, names: Mapping[str, str]) -> Any:
    """What a file of an earlier version holds, under the names that its keys have now.

    Example:
        >>> renamed({"whole": 0.7, "rows": 3}, {"whole": "baseline_score"})
        {'baseline_score': 0.7, 'rows': 3}
    """
    return {names.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data


def problems_of(error: ValidationError) -> str:
    """What is wrong with a file's values, each with its place."""
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the whole file'}: {each['msg']}" for each in error.errors())
