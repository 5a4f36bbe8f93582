"""What all ways to attend over a history have in common: which lists they read, and what they compare them with.

Shape legend: B rows, S slots (events of a history, the newest first), W columns of an event, P of them that stand
beside the candidate's own, H columns of an event's key, O outputs.
"""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from contract.settings import Settings

Heads = Annotated[int, Field(ge=1)]


class Attention(nn.Module, ABC):
    """Weighs the events of a history by a candidate.

    `keys` reads the events alone, so that a graph computes them once for a user; `attend` does the rest.
    """

    @abstractmethod
    def keys(self, events_BSW: Tensor) -> Tensor:
        """What is computed of the events before any candidate is seen [B, S, H]."""

    @abstractmethod
    def attend(self, events_BSW: Tensor, keys_BSH: Tensor, target_BP: Tensor, inside_BS: Tensor) -> Tensor:
        """The events as one vector [B, O], zeros where `inside_BS` holds none of them."""

    def forward(self, events_BSW: Tensor, target_BP: Tensor, inside_BS: Tensor) -> Tensor:
        """Both in one, a history for each candidate."""
        return self.attend(events_BSW, self.keys(events_BSW), target_BP, inside_BS)


class SequenceSettings(Settings, ABC):
    """A history of the user, or any list of the request, attended by the candidate."""

    target: str | None = None
    """The candidate's id feature that the events are compared with; null: the one whose embedding the list shares."""
    beside: dict[str, str | None] = {}
    """Lists of other columns of the same events: by name, the candidate's id feature that each is compared with; null:
    none, as for the time that has passed since the event."""
    last: Annotated[int, Field(ge=1, le=200)] | None = None
    """How many of the newest events are attended; null: all that the list holds."""

    @property
    def search_by(self) -> str | None:
        """The list of which only the values that equal the candidate's are attended; None: all events are."""
        return None

    @abstractmethod
    def outputs(self, width: int) -> int:
        """How many columns events of `width` columns become."""

    @abstractmethod
    def build(self, width: int, target: int) -> Attention:
        """Build over events of `width` columns, the first `target` of which have counterparts of the candidate."""


def masked_weights(scores_BS: Tensor, inside_BS: Tensor) -> Tensor:
    """A softmax over the events inside [B, S], all zeros where there is none.

    >>> masked_weights(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    return torch.where(inside_BS, scores_BS, -1e30).softmax(-1) * inside_BS
