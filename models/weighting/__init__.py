"""How much each task's loss counts: one paper a file, chosen by `name`."""

from typing import Annotated

from pydantic import Field

from models.weighting.fixed import FixedConfig
from models.weighting.gradnorm import GradNormConfig
from models.weighting.pcgrad import PCGradConfig
from models.weighting.task_weighting import Shared, Weighting
from models.weighting.uncertainty import UncertaintyConfig

WeightingConfig = Annotated[
    FixedConfig | UncertaintyConfig | GradNormConfig | PCGradConfig,
    Field(discriminator="name"),
]
"""Any rule's configuration; in YAML, ``name`` says which."""

__all__ = [
    "FixedConfig",
    "GradNormConfig",
    "PCGradConfig",
    "Shared",
    "UncertaintyConfig",
    "Weighting",
    "WeightingConfig",
]
