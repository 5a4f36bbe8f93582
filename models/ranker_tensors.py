"""What goes into a ranker and comes out, as tensors; and the inputs' one-way path into TorchRec's packed form.

Shape legend: R requests, N candidate rows, F id features, L id-list features, D dense features, V packed ids;
B rows and T tasks of an output.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from contract.inputs import Inputs, PartInputs
from models.gates import Routing


class TensorPart(NamedTuple):
    """One part's columns as tensors: the fields and layout of `contract.inputs.PartInputs`."""

    ids_NF: Tensor
    list_values_V: Tensor
    list_lengths_LN: Tensor
    dense_ND: Tensor

    @classmethod
    def from_numpy(cls, part: PartInputs) -> Self:
        """Wrap the arrays without copying (the tensors share their memory)."""
        return cls(*(torch.from_numpy(a) for a in (part.ids, part.list_values, part.list_lengths, part.dense)))

    @property
    def rows(self) -> int:
        """How many rows this part has."""
        return self.ids_NF.shape[0]

    def to(self, device: torch.device) -> Self:
        """The same part on another device."""
        return type(self)(*(column.to(device, non_blocking=True) for column in self))

    def repeat(self, rows: int) -> Self:
        """Repeat a single row `rows` times, keeping the feature-major order of the lists.

        Raises:
            ValueError: the part has more than one row.
        """
        if self.rows == rows:
            return self
        if self.rows != 1:
            message = f"cannot pair {self.rows} request rows with {rows} candidate rows: only 1 or {rows}"
            raise ValueError(message)
        lists = self.list_values_V.split(self.list_lengths_LN[:, 0].tolist())
        values = torch.cat([ids.repeat(rows) for ids in lists]) if lists else self.list_values_V
        return type(self)(
            ids_NF=self.ids_NF.expand(rows, -1),
            list_values_V=values,
            list_lengths_LN=self.list_lengths_LN.expand(-1, rows),
            dense_ND=self.dense_ND.expand(rows, -1),
        )


class TensorInputs(NamedTuple):
    """Both parts; `request` has one row or as many as `candidate`."""

    request: TensorPart
    candidate: TensorPart

    @classmethod
    def from_numpy(cls, inputs: Inputs) -> Self:
        """Wrap encoded inputs without copying."""
        return cls(TensorPart.from_numpy(inputs.request), TensorPart.from_numpy(inputs.candidate))

    @property
    def rows(self) -> int:
        """How many rows are to be scored."""
        return self.candidate.rows

    def to(self, device: torch.device) -> Self:
        """The same inputs on another device."""
        return type(self)(self.request.to(device), self.candidate.to(device))

    def paired(self) -> Self:
        """The same rows with the request part repeated to one row per candidate."""
        return type(self)(self.request.repeat(self.rows), self.candidate)


class RankerOutput(NamedTuple):
    """Raw outputs and routing of B rows.

    `logits_BT`: logits of binary tasks; regression tasks as (label - base rate) / spread.
    `penalties`: the gates' regularisation terms, summed over gates, already weighted.
    `columns_BD`: the input matrix, which all tasks share.
    `routings`: each gate's, over the experts of its level, in the order of `network.typed_gates`.
    `members`: in training, the raw outputs [B, T] of each of several members, which `logits_BT` are the mean of.
    """

    logits_BT: Tensor
    penalties: dict[str, Tensor]
    routings: tuple[Routing, ...]
    columns_BD: Tensor
    members: tuple[Tensor, ...] = ()


class PackedIds(NamedTuple):
    """Ids of many features in one buffer, feature-major, as a KeyedJaggedTensor takes them."""

    values_V: Tensor
    lengths_FN: Tensor


def pack_ids(parts: tuple[TensorPart, ...]) -> PackedIds:
    """Join the parts' ids (one per row) and lists, part by part: ids first, then lists."""
    values: list[Tensor] = []
    lengths: list[Tensor] = []
    for part in parts:
        values += [part.ids_NF.t().reshape(-1), part.list_values_V]
        lengths += [torch.ones_like(part.ids_NF.t()), part.list_lengths_LN]
    return PackedIds(torch.cat(values), torch.cat(lengths))
