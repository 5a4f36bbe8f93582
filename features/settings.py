"""The base of every configuration block: frozen, keyword-only, unknown keys refused."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of configuration; wrong keys and wrong types are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
