"""Histories that a candidate attends: one paper a file, chosen by `name`."""

from typing import Annotated

from pydantic import Field

from models.sequences.din import DINConfig
from models.sequences.history_contrast import HistoryContrastConfig
from models.sequences.sequence_plan import ATTENDED, SequencePlan, network_columns, plan_sequences
from models.sequences.sequence_settings import Attention, SequenceSettings
from models.sequences.sim import SIMConfig

SequenceConfig = Annotated[DINConfig | SIMConfig, Field(discriminator="name")]
"""Any attention's configuration; in YAML, ``name`` says which."""

__all__ = [
    "ATTENDED",
    "Attention",
    "DINConfig",
    "HistoryContrastConfig",
    "SIMConfig",
    "SequenceConfig",
    "SequencePlan",
    "SequenceSettings",
    "network_columns",
    "plan_sequences",
]
