"""Architectures: one paper a file, each a plan of expert sets, gates and streams, chosen by `name`."""

from typing import Annotated

from pydantic import Field

from models.architectures.architecture_plan import (
    Architecture,
    ArchitecturePlan,
    ExpertSet,
    GatePlan,
    LevelPlan,
    PlanRequest,
)
from models.architectures.home import HoMEConfig
from models.architectures.members import in_members
from models.architectures.mmoe import MMoEConfig
from models.architectures.ple import CGCConfig, PLEConfig
from models.architectures.shared_bottom import SharedBottomConfig
from models.architectures.stem import STEMConfig

ArchitectureConfig = Annotated[
    MMoEConfig | SharedBottomConfig | CGCConfig | PLEConfig | HoMEConfig | STEMConfig,
    Field(discriminator="name"),
]
"""Any architecture's configuration; in YAML, ``name`` says which."""

__all__ = [
    "Architecture",
    "ArchitectureConfig",
    "ArchitecturePlan",
    "CGCConfig",
    "ExpertSet",
    "GatePlan",
    "HoMEConfig",
    "LevelPlan",
    "MMoEConfig",
    "PLEConfig",
    "PlanRequest",
    "STEMConfig",
    "SharedBottomConfig",
    "in_members",
]
