"""Two operators that pair R request rows with N candidate rows, R being 1 or N, without saying which.

PyTorch's exporter would settle R = 1 or R = N for good when it meets a broadcast between the two; as operators of our
own they stay open, and ONNX broadcasts when the graph runs.

Shape legend: R requests, N candidate rows, n rows of an expert, H columns.
"""

from collections.abc import Callable
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


@torch.library.custom_op("moerank::pair_rows", mutates_args=())
def pair_rows(request_RH: Tensor, rows_n: Tensor) -> Tensor:
    """The request's columns for some candidate rows: [n, H]."""
    return request_RH[rows_n % request_RH.shape[0]]


@pair_rows.register_fake
def _(request_RH: Tensor, rows_n: Tensor) -> Tensor:
    return request_RH.new_empty(rows_n.shape[0], request_RH.shape[1])


def _pair_add_onnx(request_RH: Any, candidate_NH: Any) -> Any:
    return op.Add(request_RH, candidate_NH)


def _pair_rows_onnx(request_RH: Any, rows_n: Any) -> Any:
    requests = op.Shape(request_RH, start=0, end=1)
    return op.Gather(request_RH, op.Mod(rows_n, requests), axis=0)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.moerank.pair_add.default: _pair_add_onnx,
    torch.ops.moerank.pair_rows.default: _pair_rows_onnx,
}
"""What `torch.onnx.export` needs to know about the two."""
