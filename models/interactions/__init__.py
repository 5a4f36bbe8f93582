"""Feature interactions before the experts: one paper a file, chosen by `name`."""

from typing import Annotated

from pydantic import Field

from models.interactions.autoint import AutoIntConfig
from models.interactions.cross import CrossNetworkConfig
from models.interactions.epnet import EPNetConfig
from models.interactions.none import NoInteractionConfig
from models.interactions.projection import ProjectionConfig

InteractionConfig = Annotated[
    NoInteractionConfig | CrossNetworkConfig | AutoIntConfig | EPNetConfig | ProjectionConfig,
    Field(discriminator="name"),
]
"""Any interaction's configuration; in YAML, ``name`` says which."""

__all__ = [
    "AutoIntConfig",
    "CrossNetworkConfig",
    "EPNetConfig",
    "InteractionConfig",
    "NoInteractionConfig",
    "ProjectionConfig",
]
