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


def pair_add_onnx(request_RH: Any, candidate_NH: Any, request_N: Any = None) -> Any:
    """`pair_add` in ONNX."""
    return op.Add(request_RH if request_N is None else op.Gather(request_RH, request_N, axis=0), candidate_NH)
