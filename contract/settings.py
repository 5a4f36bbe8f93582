"""The base of every configuration block: frozen, keyword-only, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of configuration; wrong keys and wrong types are refused.

    A text under a field is its description: editors show it, and docs/configuration.md prints it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)
