"""A search in a long history by a key, such as the category, and attention over what it finds.

Source: Pi et al. 2020, "Search-based User Interest Modeling with Lifelong Sequential Behavior Data for Click-Through
Rate Prediction": the general search unit keeps the events of the candidate's own category (section 3.2, hard search,
equation 1), the exact search unit is attention of several heads over these (section 3.3, equations 4 and 5). Departure:
products are divided by the square root of a head's width, as Vaswani et al. 2017 do.

Shape legend: B rows, S slots, W columns of an event, P of them with a counterpart of the candidate, G heads, A width of
a head.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.sequences.sequence_settings import Attention, Heads, SequenceSettings, masked_weights


class SIMConfig(SequenceSettings):
    """Only events that share the candidate's value of `search` are attended, by heads of attention."""

    name: Literal["sim"] = "sim"
    search: str
    """The list that is searched: the history itself or one of `beside` that has a counterpart of the candidate."""
    heads: Heads = 2
    """Heads of attention."""
    head_width: Heads = 8
    """Columns of a head's queries and keys."""

    @property
    def search_by(self) -> str | None:
        """The list that is searched."""
        return self.search

    def outputs(self, width: int) -> int:
        """The event's columns for each head."""
        return self.heads * width

    def build(self, width: int, target: int) -> Attention:
        """Build the exact search unit; see `SequenceSettings.build`."""
        return SIM(self, width, target)


class SIM(Attention):
    """softmax(W_a v . W_b e_j) over the events that were found, head by head."""

    def __init__(self, config: SIMConfig, width: int, target: int) -> None:
        """Make the maps of events and candidate."""
        super().__init__()
        self.heads, self.scale = config.heads, config.head_width**-0.5
        self.event = nn.Linear(width, config.heads * config.head_width, bias=False)
        self.candidate = nn.Linear(target, config.heads * config.head_width, bias=False)

    def keys(self, events_BSW: Tensor) -> Tensor:
        """W_b e_j of all heads [B, S, G * A]."""
        own: Tensor = self.event(events_BSW)
        return own

    def attend(self, events_BSW: Tensor, keys_BSH: Tensor, target_BP: Tensor, inside_BS: Tensor) -> Tensor:
        """The heads' mixtures of the events, side by side [B, G * W]."""
        query_BGA = self.candidate(target_BP).unflatten(1, (self.heads, -1)) * self.scale
        key_BGSA = keys_BSH.unflatten(2, (self.heads, -1)).transpose(1, 2)
        scores_BGS = (key_BGSA @ query_BGA.unsqueeze(3)).squeeze(3)
        weights_BGS = masked_weights(scores_BGS, inside_BS.unsqueeze(1))
        return torch.bmm(weights_BGS, events_BSW).flatten(1)
