"""Which columns of the input matrix each task's own experts read, where embeddings are dealt out to tasks.

Shape legend: S streams (one a task, and the shared one), W columns of a stream.
"""

import math

import torch
from torch import Tensor

from contract.errors import ConfigError
from contract.schema import IdSpec
from models.architectures import ArchitecturePlan
from models.input_layout import FeatureColumns
from models.interactions import NoInteractionConfig
from models.model_config import ModelConfig
from models.sequences import ATTENDED


def task_columns(features: list[FeatureColumns], tasks: int, plan: ArchitecturePlan, config: ModelConfig) -> Tensor:
    """The columns [S, W] of each stream: its share of every embedding, and all else; [0, 0] without such streams.

    Raises:
        ConfigError: an embedding that cannot be dealt out evenly, or layers before the experts that would mix it.
    """
    if not plan.own_embeddings:
        return torch.zeros(0, 0, dtype=torch.int64)
    if config.bottom or not isinstance(config.interaction, NoInteractionConfig):
        message = (
            "architecture stem gives each task embeddings of its own, which shared layers and interactions would mix: "
            "leave model.bottom and model.interaction out"
        )
        raise ConfigError(message)
    shares = tasks + 1
    streams: list[list[int]] = [[] for _ in range(shares)]
    for feature in features:
        width = len(feature.columns)
        if not isinstance(feature.spec, IdSpec) or feature.spec.name.startswith(ATTENDED):
            for stream in streams:
                stream.extend(feature.columns)
        elif width % shares:
            # Training takes tables whose columns are a multiple of four alone.
            message = (
                f"architecture stem deals the {width} columns of {feature.spec.name} out to {tasks} tasks and one "
                f"shared part: let model.embedding_dim (and table_dims) be multiples of {math.lcm(shares, 4)}"
            )
            raise ConfigError(message)
        else:
            own = width // shares
            for place, stream in enumerate(streams):
                stream.extend(feature.columns[place * own : (place + 1) * own])
    return torch.tensor(streams)
