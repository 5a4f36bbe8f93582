"""The operator that pairs R request rows with N candidate rows, R being 1 or N, without saying which.

PyTorch's exporter would settle R = 1 or R = N for good when it meets a broadcast between the two; as an operator
of our own it stays open, and ONNX broadcasts when the graph runs.

Shape legend: R requests, N candidate rows, H columns.
"""

from typing import Any

import torch
from onnxscript import opset20 as op
from torch import Tensor


@torch.library.custom_op("moerank::pair_add", mutates_args=())
def pair_add(request_RH: Tensor, candidate_NH: Tensor) -> Tensor:
    """Add the request's columns to each of its candidates: [N, H]."""
    return request_RH + candidate_NH


@pair_add.register_fake
def _(request_RH: Tensor, candidate_NH: Tensor) -> Tensor:
    del request_RH
    return torch.empty_like(candidate_NH)


def pair_add_onnx(request_RH: Any, candidate_NH: Any) -> Any:
    """`pair_add` in ONNX."""
    return op.Add(request_RH, candidate_NH)
