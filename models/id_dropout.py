"""Ids that training takes for unknown at times, so that the rows of unknown ids are trained as well.

Without it an id that was never seen reads an embedding row that was never trained, and its answer is arbitrary.

Shape legend: F id features and lists in the order of `pack_ids`, N rows, V packed ids.
"""

from functools import partial

import torch
from torch import Tensor, nn

from contract.schema import IdSpec, Schema
from models.input_layout import PartLayout
from models.model_config import ModelConfig
from models.ranker_tensors import PackedIds
from models.row_share import draw_rows, is_shared, places_in_batch, repeated_rows

OWN_ID_RATE = 0.05
"""Of the user's and the item's own ids where the configuration names no rate."""


class IdDropout(nn.Module):
    """Replaces ids by a row of the unknown: row 0, or one of the rows that unknown values share."""

    rate_F: Tensor
    first_F: Tensor
    shared_F: Tensor

    def __init__(self, schema: Schema, parts: tuple[PartLayout, PartLayout], config: ModelConfig) -> None:
        """Set each feature's rate by the configuration; buffers that no checkpoint holds."""
        super().__init__()
        specs = [spec for layout in parts for spec in (*layout.ids, *layout.lists)]
        rates = [_rate(spec, schema, config) for spec in specs]
        first = [1 + spec.null_row if spec.unknown_rows else 0 for spec in specs]
        self.register_buffer("rate_F", torch.tensor(rates), persistent=False)
        self.register_buffer("first_F", torch.tensor(first), persistent=False)
        self.register_buffer("shared_F", torch.tensor([max(s.unknown_rows, 1) for s in specs]), persistent=False)
        self.active = any(rate > 0 for rate in rates)
        self.lists = any(spec.kind != "id" for spec in specs)

    def forward(self, packed: PackedIds, counts: list[int] | None = None) -> PackedIds:
        """The same lists with some ids replaced; `counts`: how many ids each feature has, if the host knows."""
        if not self.active:
            return packed
        counts_F, total = packed.lengths_FN.sum(dim=1), len(packed.values_V)
        rate_V, first_V, shared_V = (
            # Without its size the answer would have to be asked for.
            each.repeat_interleave(counts_F, output_size=total)
            for each in (self.rate_F, self.first_F, self.shared_F)
        )
        chance_V = self._chances(packed, counts)
        # Below the rate the number is uniform in [0, rate): it also says which of the shared rows is taken.
        place_V = (chance_V / rate_V.clamp(min=1e-9) * shared_V).long().minimum(shared_V - 1)
        return PackedIds(torch.where(chance_V < rate_V, first_V + place_V, packed.values_V), packed.lengths_FN)

    def _chances(self, packed: PackedIds, counts: list[int] | None) -> Tensor:
        """A uniform number an id, [V]."""
        device = packed.values_V.device
        if not is_shared():
            return torch.rand(packed.values_V.shape, device=device)
        counts = counts or packed.lengths_FN.sum(dim=1).tolist()
        if not self.lists:
            return torch.cat([draw_rows(partial(torch.rand, device=device), (count,)) for count in counts])
        # Also where no id of a list is replaced: what is drawn after them must not depend on this rank's lists.
        head = repeated_rows()
        repeated = packed.lengths_FN[:, :head].sum(dim=1).tolist() if head else [0] * len(counts)
        begins, total = places_in_batch(counts, repeated)
        everyones = torch.rand(total, device=device)
        return torch.cat([everyones[begin : begin + count] for begin, count in zip(begins, counts, strict=True)])


def _rate(spec: IdSpec, schema: Schema, config: ModelConfig) -> float:
    if config.id_dropout is not None:
        return config.id_dropout if spec.rows >= config.id_dropout_rows else 0.0
    return OWN_ID_RATE if spec.table_name in {schema.user_key, schema.item_key} else 0.0
