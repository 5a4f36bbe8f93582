"""The operator that pairs R request rows with N candidate rows, R being 1 or N, without saying which.

PyTorch's exporter would settle R = 1 or R = N for good when it meets a broadcast between the two; as an operator
of our own it stays open, and ONNX broadcasts when the graph runs. With an index R is any number: each candidate names
its request.

Shape legend: R requests, N candidate rows, H columns.
"""

from typing import Any

import torch
from onnxscript import opset20 as op
from torch import Tensor


@torch.library.custom_op("moerank::pair_add", mutates_args=())
def pair_add(request_RH: Tensor, candidate_NH: Tensor, request_N: Tensor | None = None) -> Tensor:
    """Add the request's columns to each of its candidates: [N, H]; `request_N` is the request of each candidate."""
    return (request_RH if request_N is None else request_RH.index_select(0, request_N)) + candidate_NH


@pair_add.register_fake
def _(request_RH: Tensor, candidate_NH: Tensor, request_N: Tensor | None = None) -> Tensor:
    del request_RH, request_N
    return torch.empty_like(candidate_NH)


def request_index(request_RH: Tensor, candidate_NH: Tensor) -> Tensor:
    """The request of each candidate [N], R being 1 or N.

    Counted up on the device: the remainder by R would copy R from the host to the card, and no CUDA graph holds that.
    """
    counted_R1 = torch.ones_like(request_RH[:, :1], dtype=torch.int64).cumsum(0) - 1
    nothing_N1 = torch.zeros_like(candidate_NH[:, :1], dtype=torch.int64)
    return pair_add(counted_R1, nothing_N1).squeeze(1)


@torch.library.custom_op("moerank::pair_linear", mutates_args=())
def pair_linear(request_RH: Tensor, candidate_ND: Tensor, weight_DH: Tensor, request_N: Tensor | None = None) -> Tensor:
    """`pair_add` of the request's columns and ``candidate_ND @ weight_DH`` [N, H], in one operator of the graph."""
    request_NH = request_RH if request_N is None else request_RH.index_select(0, request_N)
    return request_NH + candidate_ND @ weight_DH


@pair_linear.register_fake
def _(request_RH: Tensor, candidate_ND: Tensor, weight_DH: Tensor, request_N: Tensor | None = None) -> Tensor:
    del request_RH, request_N
    return candidate_ND.new_empty((candidate_ND.shape[0], weight_DH.shape[1]))


def pair_linear_onnx(request_RH: Any, candidate_ND: Any, weight_DH: Any, request_N: Any = None) -> Any:
    """`pair_linear` in ONNX, where what a Gemm adds may have one row or as many as its answer."""
    added = request_RH if request_N is None else op.Gather(request_RH, request_N, axis=0)
    return op.Gemm(candidate_ND, weight_DH, added)


def pair_add_onnx(request_RH: Any, candidate_NH: Any, request_N: Any = None) -> Any:
    """`pair_add` in ONNX."""
    return op.Add(request_RH if request_N is None else op.Gather(request_RH, request_N, axis=0), candidate_NH)
