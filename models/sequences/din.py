"""Target attention: a small network scores each event of the history against the candidate.

Source: Zhou et al. 2018, "Deep Interest Network for Click-Through Rate Prediction", equation 3 and figure 2: the vector
of a user is sum_j a(e_j, v_A) e_j. The activation unit a reads the event, the candidate, their difference and their
product; its scores are not normalised, so that their sum says how much of a history has to do with the candidate.
Departure: the activation is SiLU in place of PReLU or Dice.

Shape legend: B rows, S slots, W columns of an event, P of them with a counterpart of the candidate, H hidden units.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from models.sequences.sequence_settings import Attention, SequenceSettings, masked_weights


class DINConfig(SequenceSettings):
    """The candidate's embedding attends over the history's by a network of its own."""

    name: Literal["din"] = "din"
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16,)
    """Widths of the scoring network's hidden layers."""
    normalise: bool = False
    """Whether scores go through a softmax, which the paper leaves out."""
    search: str | None = None
    """A list, with a counterpart of the candidate: only events with the candidate's own value of it are attended."""

    @property
    def search_by(self) -> str | None:
        """The list that is searched."""
        return self.search

    def outputs(self, width: int) -> int:
        """The event's own columns."""
        return width

    def build(self, width: int, target: int) -> Attention:
        """Build the activation unit; see `SequenceSettings.build`."""
        return DIN(self, width, target)


class DIN(Attention):
    """The activation unit, its first layer split: the event's share is computed before the candidate is known."""

    def __init__(self, config: DINConfig, width: int, target: int) -> None:
        """Make the layers over events of `width` columns, `target` of which are compared."""
        super().__init__()
        first, self.compared, self.normalise = config.widths[0], target, config.normalise
        self.event = nn.Linear(width, first)
        self.candidate = nn.Linear(target, first, bias=False)
        self.difference = nn.Linear(target, first, bias=False)
        self.product = nn.Linear(target, first, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(config.widths))
        self.score = nn.Linear(config.widths[-1], 1)

    def keys(self, events_BSW: Tensor) -> Tensor:
        """The event's own share of the first layer [B, S, H]."""
        own: Tensor = self.event(events_BSW) + self.difference(events_BSW[..., : self.compared])
        return own

    def attend(self, events_BSW: Tensor, keys_BSH: Tensor, target_BP: Tensor, inside_BS: Tensor) -> Tensor:
        """sum_j a(e_j, v) e_j."""
        candidate_BH = self.candidate(target_BP) - self.difference(target_BP)
        # (e * v) W^T = e (v * W)^T: one product of matrices a row, and nothing of the size of all events is made twice.
        weight_BPH = target_BP.unsqueeze(2) * self.product.weight.t()
        product_BSH = torch.bmm(events_BSW[..., : self.compared], weight_BPH)
        hidden_BSH = functional.silu(keys_BSH + product_BSH + candidate_BH.unsqueeze(1))
        for layer in self.hidden:
            hidden_BSH = functional.silu(layer(hidden_BSH))
        scores_BS = self.score(hidden_BSH).squeeze(2)
        weights_BS = masked_weights(scores_BS, inside_BS) if self.normalise else scores_BS * inside_BS
        return torch.bmm(weights_BS.unsqueeze(1), events_BSW).squeeze(1)
