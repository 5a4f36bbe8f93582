"""The attended histories of a model in training: single events out of packed lists, and what attention makes of them.

Embedding collections answer one vector per feature and row. So each slot of a list, newest first, is a feature
of its own that reads the list's table: any sharding of the tables serves it as it serves all others.

Shape legend: B rows, V packed ids, L lists, F id features, S slots, K embedding dim, O outputs.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contract.schema import IdSpec, Schema
from models.input_layout import TableDims
from models.row_share import draw_rows
from models.sequences.sequence_plan import SequencePlan
from models.sequences.sequence_settings import Attention


class SlotIds(NamedTuple):
    """The ids of one slot: one or none for each row."""

    name: str
    values_V: Tensor
    lengths_B: Tensor


class Attended(NamedTuple):
    """The columns [B, O] of all histories, and the same with some events left out (None: not asked for)."""

    columns_BO: Tensor
    masked_BO: Tensor | None


class RowIds(NamedTuple):
    """The request's packed lists and the candidates' ids, as rows have them."""

    values_V: Tensor
    lengths_LB: Tensor
    candidate_BF: Tensor


class AttendedHistories(nn.Module):
    """Attention over each history of a plan."""

    def __init__(self, plans: tuple[SequencePlan, ...], schema: Schema, dims: TableDims) -> None:
        """Build the attention over embeddings of the widths `dims`."""
        super().__init__()
        self.plans = plans
        self.attentions = nn.ModuleList(plan.attention(dims) for plan in plans)
        self.list_places = {spec.name: place for place, spec in enumerate(schema.request.lists)}
        self.id_places = {spec.name: place for place, spec in enumerate(schema.candidate.ids)}
        self.slots: dict[str, int] = {}
        self.tables: dict[str, str] = {}
        """By slot's name the table that it reads."""
        for plan in plans:
            for spec in plan.lists:
                self.slots[spec.name] = max(self.slots.get(spec.name, 0), plan.slots)
                self.tables |= {slot_name(spec, place): spec.table_name for place in range(plan.slots)}

    def slot_ids(self, values_V: Tensor, lengths_LB: Tensor, offset: int) -> list[SlotIds]:
        """Each slot's ids out of packed lists, the request's first list being the row `offset` of the lengths."""
        ids = []
        for name, slots in self.slots.items():
            ids_BS, inside_BS = newest(values_V, lengths_LB, offset + self.list_places[name], slots)
            for place in range(slots):
                inside_B = inside_BS[:, place]
                ids.append(SlotIds(f"{name}@{place}", ids_BS[:, place][inside_B], inside_B.long()))
        return ids

    def forward(self, vectors: dict[str, Tensor], ids: RowIds, mask: float = 0.0) -> Attended:
        """Attend, `vectors` being the embeddings [B, K] by the names of features and slots.

        With `mask`, once more with each event left out with this probability.
        """
        whole, masked = [], []
        for plan, attention in zip(self.plans, self.attentions, strict=True):
            assert isinstance(attention, Attention)  # noqa: S101 the list holds these; this tells the type checker
            events_BSW = torch.cat(
                [torch.stack([vectors[slot_name(spec, s)] for s in range(plan.slots)], dim=1) for spec in plan.lists],
                dim=2,
            )
            target_BP = torch.cat([vectors[spec.name] for spec in plan.targets], dim=1)
            keys_BSH, inside_BS = attention.keys(events_BSW), self._inside(plan, ids)
            whole.append(attention.attend(events_BSW, keys_BSH, target_BP, inside_BS))
            if mask > 0:
                inside_BS = inside_BS & (
                    draw_rows(partial(torch.rand, device=inside_BS.device), inside_BS.shape) >= mask
                )
                masked.append(attention.attend(events_BSW, keys_BSH, target_BP, inside_BS))
        return Attended(torch.cat(whole, dim=1), torch.cat(masked, dim=1) if masked else None)

    def _inside(self, plan: SequencePlan, ids: RowIds) -> Tensor:
        """Which slots hold an event that is attended [B, S]."""
        main = self.list_places[plan.lists[plan.main].name]
        _, inside_BS = newest(ids.values_V, ids.lengths_LB, main, plan.slots)
        if plan.searched is None:
            return inside_BS
        place = self.list_places[plan.lists[plan.searched].name]
        found_BS, _ = newest(ids.values_V, ids.lengths_LB, place, plan.slots)
        candidate_B = ids.candidate_BF[:, self.id_places[plan.targets[plan.searched].name]]
        return inside_BS & plan.matches(found_BS, candidate_B)


def slot_name(spec: IdSpec, place: int) -> str:
    """The feature that reads the event `place` of a list, 0 being the newest."""
    return f"{spec.name}@{place}"


def newest(values_V: Tensor, lengths_LB: Tensor, place: int, slots: int) -> tuple[Tensor, Tensor]:
    """The ids of a list's newest events [B, S], 0 where there is none, and where there is one.

    >>> ids, inside = newest(torch.tensor([5, 6, 7]), torch.tensor([[2, 1]]), 0, 2)
    >>> ids.tolist(), inside.tolist()
    ([[6, 5], [7, 0]], [[True, True], [True, False]])
    """
    ends_B = lengths_LB.reshape(-1).cumsum(0).reshape(lengths_LB.shape)[place]
    back_S = torch.arange(slots, device=values_V.device)
    inside_BS = back_S < lengths_LB[place].unsqueeze(1)
    index_BS = torch.where(inside_BS, ends_B.unsqueeze(1) - 1 - back_S, 0)
    # The sentinel keeps the gather legal where all lists are empty.
    ids_BS = torch.cat([values_V, values_V.new_zeros(1)])[index_BS]
    return torch.where(inside_BS, ids_BS, 0), inside_BS
