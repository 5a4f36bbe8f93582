"""A first layer split by who provides its input: W_r r once a request, W_c c for each candidate, then their sum.

Shape legend: R requests, N candidate rows, D columns of a part, H outputs, n rows of an expert.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.export.affine import Affine
from models.export.pairing import pair_add, pair_rows


class SplitInput(NamedTuple):
    """The input matrix by parts; None for a part without columns (never both)."""

    request_RD: Tensor | None
    candidate_ND: Tensor | None


class SplitLinear(nn.Module):
    """An affine map over the joined parts, request columns first."""

    weight_request_DH: Tensor
    weight_candidate_DH: Tensor
    bias_H: Tensor

    def __init__(self, affine: Affine, request_width: int) -> None:
        """Split the map after its first `request_width` inputs."""
        super().__init__()
        weight_DH = affine.weight_HD.t().float()
        self.register_buffer("weight_request_DH", weight_DH[:request_width].contiguous())
        self.register_buffer("weight_candidate_DH", weight_DH[request_width:].contiguous())
        self.register_buffer("bias_H", affine.bias_H.float())

    def request(self, x: SplitInput) -> Tensor:
        """The request's share with the bias: [R, H], or only the bias [H]."""
        return self.bias_H if x.request_RD is None else torch.addmm(self.bias_H, x.request_RD, self.weight_request_DH)

    def forward(self, x: SplitInput) -> Tensor:
        """[N, H]."""
        request = self.request(x)
        if x.candidate_ND is None:
            return request
        if x.request_RD is None:
            return torch.addmm(request, x.candidate_ND, self.weight_candidate_DH)
        return pair_add(request, x.candidate_ND @ self.weight_candidate_DH)

    def rows(self, request: Tensor, x: SplitInput, rows_n: Tensor, outputs: slice) -> Tensor:
        """Some outputs of some candidate rows [n, outputs], given the answer of `request`."""
        request = request[..., outputs]
        if x.candidate_ND is None:
            return request.index_select(0, rows_n)
        candidates = x.candidate_ND.index_select(0, rows_n)
        weight = self.weight_candidate_DH[:, outputs]
        if x.request_RD is None:
            return torch.addmm(request, candidates, weight)
        return pair_rows(request, rows_n) + candidates @ weight
