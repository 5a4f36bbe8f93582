"""A first layer split by who provides its input: W_r r once per request, W_c c for each candidate, then their sum.

What hangs on the item alone may be computed before any request: its share W_i i of each first layer is then a row of a
table, and only the pair features' share W_p p is left to the request.

Shape legend: R requests, N candidate rows, D columns of a part, H outputs, I prepared items, J item columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.export_graph.affine import Affine
from models.export_graph.pairing import pair_add, pair_linear

_AT_ONCE = 2**14


class ItemRows(NamedTuple):
    """The items' columns: where they stand in the candidate's part of the input matrix, and their values."""

    columns_J: tuple[int, ...]
    values_IJ: Tensor

    def share(self, weight_DH: Tensor) -> Tensor:
        """The items' share [I, H] of a layer whose weights [D, H] read the candidate's part, float32 of float64."""
        weight_JH = weight_DH[list(self.columns_J)].double()
        return torch.cat([(rows.double() @ weight_JH).float() for rows in self.values_IJ.split(_AT_ONCE)])

    def left(self, weight_DH: Tensor) -> Tensor:
        """The weights of the other columns, which the request still brings."""
        prepared = set(self.columns_J)
        return weight_DH[[column for column in range(len(weight_DH)) if column not in prepared]]


class LeftColumns(NamedTuple):
    """The columns of each part, counted from its own first one, that a request still brings."""

    request: tuple[int, ...]
    candidate: tuple[int, ...]


class InputParts(NamedTuple):
    """How the input matrix is put together: so many columns of the request first; the items that are prepared.

    `one_request`: every run has exactly one request, as long as nothing stands between the inputs and the layer.
    """

    request: int = 0
    items: ItemRows | None = None
    one_request: bool = False
    left: LeftColumns | None = None
    """Where the sum of all prepared shares is an input of the graph."""


class SplitInput(NamedTuple):
    """The input matrix by parts; None for a part without columns (never all of them).

    `request_N` is the request of each candidate where several share a run; None: there is one, or one per candidate.
    `item_N` is the row of each candidate in the tables of prepared items, `share_NH` the sum of its prepared rows.
    `most_1` bounds a row's experts of a gate.
    """

    request_RD: Tensor | None
    candidate_ND: Tensor | None
    request_N: Tensor | None = None
    item_N: Tensor | None = None
    share_NH: Tensor | None = None
    most_1: Tensor | None = None

    def nothing(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Zeros [N, 1]; None where the request has all columns."""
        if self.candidate_ND is not None:
            return torch.zeros_like(self.candidate_ND[:, :1], dtype=dtype)
        if self.share_NH is not None:
            return torch.zeros_like(self.share_NH[:, :1], dtype=dtype)
        return None if self.item_N is None else torch.zeros_like(self.item_N, dtype=dtype).unsqueeze(1)


def rows_of(x: SplitInput) -> Tensor:
    """All columns for each candidate row [N, D]."""
    if x.request_RD is None:
        assert x.candidate_ND is not None  # noqa: S101 one part at least has columns
        return x.candidate_ND
    if x.candidate_ND is None:
        return x.request_RD
    width = x.request_RD.shape[1]
    nothing_ND = torch.zeros_like(x.candidate_ND[:, :1]).expand(-1, width)
    return torch.cat([pair_add(x.request_RD, nothing_ND, x.request_N), x.candidate_ND], dim=1)


class SplitLinear(nn.Module):
    """An affine map over the joined parts, request columns first."""

    weight_request_DH: Tensor
    weight_candidate_DH: Tensor
    bias_H: Tensor
    prepared_IH: Tensor

    def __init__(self, affine: Affine, parts: InputParts) -> None:
        """Split the map by the parts of its input."""
        super().__init__()
        weight_DH = affine.weight_HD.t()
        request_DH, candidate_DH = weight_DH[: parts.request], weight_DH[parts.request :]
        self.shared = parts.left is not None
        if parts.left is not None:
            request_DH, candidate_DH = request_DH[list(parts.left.request)], candidate_DH[list(parts.left.candidate)]
        self.prepared = parts.items is not None
        if parts.items is not None:
            self.register_buffer("prepared_IH", parts.items.share(candidate_DH))
            candidate_DH = parts.items.left(candidate_DH)
        self.register_buffer("weight_request_DH", request_DH.float().contiguous())
        self.register_buffer("weight_candidate_DH", candidate_DH.float().contiguous())
        self.register_buffer("bias_H", affine.bias_H.float())

    def forward(self, x: SplitInput) -> Tensor:
        """[N, H], or [R, H] of the request's share alone where there is no other part."""
        share = self.bias_H if x.request_RD is None else torch.addmm(self.bias_H, x.request_RD, self.weight_request_DH)
        item_NH = x.share_NH if self.shared else None
        if self.prepared and x.item_N is not None:
            item_NH = functional.embedding(x.item_N, self.prepared_IH)
        if item_NH is not None:
            request_N = None if x.request_RD is None else x.request_N
            share = pair_add(share if x.request_RD is not None else share.unsqueeze(0), item_NH, request_N)
            return share if x.candidate_ND is None else torch.addmm(share, x.candidate_ND, self.weight_candidate_DH)
        if x.candidate_ND is None:
            return share
        if x.request_RD is None:
            return torch.addmm(share, x.candidate_ND, self.weight_candidate_DH)
        return pair_linear(share, x.candidate_ND, self.weight_candidate_DH, x.request_N)


def stacked_shares(maps: Sequence[Affine], parts: InputParts) -> Tensor:
    """The items' shares of several maps over one input, map by map below each other for each item [I * maps, H]."""
    assert parts.items is not None  # noqa: S101 the caller asked
    shares = [parts.items.share(each.weight_HD.t()[parts.request :]) for each in maps]
    if parts.request == 0:
        # Else the biases are in the request's share.
        shares = [share + each.bias_H.float() for share, each in zip(shares, maps, strict=True)]
    return torch.stack(shares, dim=1).flatten(0, 1)
