"""A first layer split by who provides its input: W_r r once a request, W_c c for each candidate, then their sum.

Shape legend: R requests, N candidate rows, D columns of a part, H outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.export_graph.affine import Affine
from models.export_graph.pairing import pair_add


class SplitInput(NamedTuple):
    """The input matrix by parts; None for a part without columns (never both).

    `request_N` is the request of each candidate where several share a run; None: there is one, or one a candidate.
    """

    request_RD: Tensor | None
    candidate_ND: Tensor | None
    request_N: Tensor | None = None


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

    def forward(self, x: SplitInput) -> Tensor:
        """[N, H], or [R, H] of the request's share alone where there is no candidate part."""
        if x.request_RD is None:
            assert x.candidate_ND is not None  # noqa: S101 one part at least has columns
            return torch.addmm(self.bias_H, x.candidate_ND, self.weight_candidate_DH)
        request = torch.addmm(self.bias_H, x.request_RD, self.weight_request_DH)
        if x.candidate_ND is None:
            return request
        return pair_add(request, x.candidate_ND @ self.weight_candidate_DH, x.request_N)
