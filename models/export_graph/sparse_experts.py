"""Experts that see only the rows that selected them: one operator while tracing, plain ONNX operators in the graph.

It answers with all rows of all experts, or, where one gate alone weighs them, with its mixture: each expert's weighted
answers are added to their rows, and nothing has to be brought back to row order.

As an operator of our own it costs the tracer one size that data decides and not one for every expert, which takes
minutes with 64 experts. One description, `_answers`, is carried out by torch and written down for ONNX.

Shape legend: R requests, N candidate rows, E experts, D columns of the candidate part, H hidden units of an expert's
first layer, O outputs of an expert, n rows of an expert, M = 1 + rows of all experts.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from onnxscript import opset20
from torch import Tensor, nn
from torch.nn import functional

from models.experts.expert_mlp import Experts
from models.export_graph.affine import Affine
from models.export_graph.blocks import expert_affines, expert_block, expert_tail
from models.export_graph.pairing import request_index
from models.export_graph.split import InputParts, SplitInput, SplitLinear, stacked_shares
from models.layers.mlp import Activation

# Its annotations name the types of ONNX, which a constant's value does not carry.
op: Any = opset20


class SparseExperts(nn.Module):
    """All experts of a mixture, each for the rows that a mask marks."""

    prepared_IEH: Tensor

    def __init__(self, experts: Experts, input_norm: nn.Module, parts: InputParts, activation: Activation) -> None:
        """Fold the norms of the experts; `input_norm` stands before their first layers."""
        super().__init__()
        self.activation = activation
        self.residual = any(expert_block(experts, layer).residual for layer in range(len(experts.blocks)))
        first = [affine.after(input_norm) for affine in expert_affines(experts, 0)]
        self.request = _request_share(first, parts.request)
        self.prepared = parts.items is not None
        if self.prepared:
            self.register_buffer("prepared_IEH", stacked_shares(first, parts))
        self.epsilon = 0.0
        self.weights = nn.ParameterList()
        for e, affine in enumerate(first):
            weight_DH = affine.weight_HD.t()[parts.request :]
            left_DH = weight_DH if parts.items is None else parts.items.left(weight_DH)
            self._add_expert(experts, e, Affine(left_DH.t(), affine.bias_H))

    def forward(self, x: SplitInput, union_NE: Tensor, weights_NE: Tensor | None = None) -> Tensor:
        """A row of zeros, then the answers expert by expert [M, O]; with `weights_NE` their weighted sum [N, O]."""
        request, request_N = None, x.request_N
        if self.request is not None:
            assert x.request_RD is not None  # noqa: S101 its columns have a share; this tells the type checker
            request = self.request(SplitInput(x.request_RD, None))
            request_N = request_index(x.request_RD, union_NE) if request_N is None else request_N
        settings = (self.activation, self.epsilon, self.residual)
        items = (self.prepared_IEH, x.item_N) if self.prepared else (None, None)
        given = (request, x.candidate_ND, request_N, *items, union_NE, weights_NE)
        answers: Tensor = expert_answers(*given, list(self.weights), *settings)
        return answers

    def _add_expert(self, experts: Experts, expert: int, candidate: Affine) -> None:
        if candidate.weight_HD.shape[1]:
            self._add(candidate.weight_HD)
        if self.request is None and not self.prepared:
            self._add(candidate.bias_H)
        for layer in range(len(experts.blocks)):
            if layer:
                affine = expert_affines(experts, layer)[expert]
                self._add(affine.weight_HD)
                self._add(affine.bias_H)
            norm = expert_tail(experts, expert, layer).norm
            if isinstance(norm, nn.LayerNorm):
                self.epsilon = norm.eps
                self._add(norm.weight)
                self._add(norm.bias)

    def _add(self, tensor: Tensor) -> None:
        self.weights.append(nn.Parameter(tensor.detach().float().contiguous(), requires_grad=False))


def _request_share(first: list[Affine], request_width: int) -> SplitLinear | None:
    if request_width == 0:
        return None
    weight_HD = torch.cat([affine.weight_HD[:, :request_width] for affine in first])
    return SplitLinear(Affine(weight_HD, torch.cat([affine.bias_H for affine in first])), InputParts(request_width))


class _Settings(NamedTuple):
    """What the experts have in common; `epsilon` is that of their layer norms, 0 without."""

    activation: str
    epsilon: float
    residual: bool


class _Backend(Protocol):
    """The few operations that the description needs, over tensors or over values of an ONNX graph."""

    def rows(self, union_NE: Any, expert: int) -> Any: ...
    def pick(self, matrix: Any, rows_n: Any) -> Any: ...
    def paired(self, request_RH: Any, columns: tuple[int, int], rows_n: Any, request_N: Any) -> Any: ...
    def item(self, items_IEH: Any, item_N: Any, rows_n: Any, expert: int, count: int) -> Any: ...
    def linear(self, x: Any, weight: Any, added: Any) -> Any: ...
    def normalise(self, x: Any, weight: Any, bias: Any, epsilon: float) -> Any: ...
    def activate(self, x: Any, activation: str) -> Any: ...
    def add(self, x: Any, y: Any) -> Any: ...
    def join(self, answers: list[Any], outputs: int) -> Any: ...
    def zeros(self, union_NE: Any, outputs: int) -> Any: ...
    def add_rows(self, total: Any, rows_n: Any, answers: Any, weights_NE: Any, expert: int) -> Any: ...


class _Shares(NamedTuple):
    """What the first layers read, as `expert_answers` names it."""

    request_REH: Any
    candidate_ND: Any
    request_N: Any
    items_IEH: Any
    item_N: Any
    weights_NE: Any


def _answers(backend: _Backend, shares: _Shares, union_NE: Any, weights: Sequence[Any], settings: _Settings) -> Any:
    request_REH, candidate_ND, request_N, items_IEH, item_N, weights_NE = shares
    count = int(union_NE.shape[1])
    size = len(weights) // count
    width = 0 if request_REH is None else int(request_REH.shape[1]) // count
    outputs = _outputs(request_REH, items_IEH, union_NE, weights)
    total = None if weights_NE is None else backend.zeros(union_NE, outputs)
    answers = []
    for e in range(count):
        own = iter(weights[e * size : (e + 1) * size])
        rows = backend.rows(union_NE, e)
        x = None
        if request_REH is not None:
            x = backend.paired(request_REH, (e * width, (e + 1) * width), rows, request_N)
        if items_IEH is not None:
            item = backend.item(items_IEH, item_N, rows, e, count)
            x = item if x is None else backend.add(x, item)
        if candidate_ND is not None:
            weight = next(own)
            x = backend.linear(backend.pick(candidate_ND, rows), weight, next(own) if x is None else x)
        x = _rest(backend, x, own, settings)
        if weights_NE is None:
            answers.append(x)
        else:
            total = backend.add_rows(total, rows, x, weights_NE, e)
    return backend.join(answers, outputs) if weights_NE is None else total


def _outputs(request_REH: Any, items_IEH: Any, union_NE: Any, weights: Sequence[Any]) -> int:
    """How many outputs an expert has: the rows of its last tensor, or of the shares where there is none."""
    if weights:
        return int(weights[-1].shape[0])
    return int(request_REH.shape[1] // union_NE.shape[1] if items_IEH is None else items_IEH.shape[1])


def _rest(backend: _Backend, x: Any, own: Iterator[Any], settings: _Settings) -> Any:
    before: Any = None
    while True:
        if settings.epsilon > 0:
            x = backend.normalise(x, next(own), next(own), settings.epsilon)
        x = backend.activate(x, settings.activation)
        x = x if before is None else backend.add(before, x)
        weight = next(own, None)
        if weight is None:
            return x
        before = x if settings.residual and weight.shape[0] == weight.shape[1] else None
        x = backend.linear(x, weight, next(own))


class _Torch:
    """Carries the description out."""

    activations: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": functional.relu,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }

    def rows(self, union_NE: Tensor, expert: int) -> Tensor:
        return union_NE[:, expert].nonzero().squeeze(1)

    def pick(self, matrix: Tensor, rows_n: Tensor) -> Tensor:
        return matrix.index_select(0, rows_n)

    def paired(self, request_RH: Tensor, columns: tuple[int, int], rows_n: Tensor, request_N: Tensor) -> Tensor:
        return request_RH[:, slice(*columns)][request_N[rows_n]]

    def item(self, items_IEH: Tensor, item_N: Tensor, rows_n: Tensor, expert: int, count: int) -> Tensor:
        return items_IEH[item_N[rows_n] * count + expert]

    def linear(self, x: Tensor, weight: Tensor, added: Tensor) -> Tensor:
        return torch.addmm(added, x, weight.t())

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        return functional.layer_norm(x, weight.shape, weight, bias, epsilon)

    def activate(self, x: Tensor, activation: str) -> Tensor:
        return self.activations[activation](x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def join(self, answers: list[Tensor], outputs: int) -> Tensor:
        return torch.cat([torch.zeros(1, outputs), *answers])

    def zeros(self, union_NE: Tensor, outputs: int) -> Tensor:
        return torch.zeros(union_NE.shape[0], outputs)

    def add_rows(self, total: Tensor, rows_n: Tensor, answers: Tensor, weights_NE: Tensor, expert: int) -> Tensor:
        return total.index_add(0, rows_n, answers * weights_NE[rows_n, expert].unsqueeze(1))


class _Onnx:
    """Writes the description down."""

    def rows(self, union_NE: Any, expert: int) -> Any:
        marks = op.Gather(union_NE, op.Constant(value_int=expert), axis=1)
        return op.Squeeze(op.NonZero(marks), op.Constant(value_ints=[0]))

    def pick(self, matrix: Any, rows_n: Any) -> Any:
        return op.Gather(matrix, rows_n, axis=0)

    def paired(self, request_RH: Any, columns: tuple[int, int], rows_n: Any, request_N: Any) -> Any:
        start, stop, axis = (op.Constant(value_ints=[value]) for value in (*columns, 1))
        return op.Gather(op.Slice(request_RH, start, stop, axis), op.Gather(request_N, rows_n, axis=0), axis=0)

    def item(self, items_IEH: Any, item_N: Any, rows_n: Any, expert: int, count: int) -> Any:
        first = op.Mul(op.Gather(item_N, rows_n, axis=0), op.Constant(value_int=count))
        return op.Gather(items_IEH, op.Add(first, op.Constant(value_int=expert)), axis=0)

    def linear(self, x: Any, weight: Any, added: Any) -> Any:
        return op.Gemm(x, weight, added, transB=1)

    def normalise(self, x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
        normalised, _, _ = op.LayerNormalization(x, weight, bias, axis=-1, epsilon=epsilon)
        return normalised

    def activate(self, x: Any, activation: str) -> Any:
        if activation == "relu":
            return op.Relu(x)
        return op.Gelu(x) if activation == "gelu" else op.Mul(x, op.Sigmoid(x))

    def add(self, x: Any, y: Any) -> Any:
        return op.Add(x, y)

    def join(self, answers: list[Any], outputs: int) -> Any:
        zeros = op.ConstantOfShape(op.Constant(value_ints=[1, outputs]))
        return op.Concat(zeros, *answers, axis=0)

    def zeros(self, union_NE: Any, outputs: int) -> Any:
        rows = op.Shape(union_NE, start=0, end=1)
        return op.ConstantOfShape(op.Concat(rows, op.Constant(value_ints=[outputs]), axis=0))

    def add_rows(self, total: Any, rows_n: Any, answers: Any, weights_NE: Any, expert: int) -> Any:
        # A row comes once per expert, so no two threads add to the same.
        weights = op.Gather(op.Gather(weights_NE, op.Constant(value_ints=[expert]), axis=1), rows_n, axis=0)
        places = op.Unsqueeze(rows_n, op.Constant(value_ints=[1]))
        return op.ScatterND(total, places, op.Mul(answers, weights), reduction="add")


@torch.library.custom_op("moerank::expert_answers", mutates_args=())
def expert_answers(  # noqa: PLR0913, PLR0917 an operator's arguments go by place
    request_REH: Tensor | None,
    candidate_ND: Tensor | None,
    request_N: Tensor | None,
    items_IEH: Tensor | None,
    item_N: Tensor | None,
    union_NE: Tensor,
    weights_NE: Tensor | None,
    weights: Sequence[Tensor],
    activation: str,
    epsilon: float,
    residual: bool,  # noqa: FBT001
) -> Tensor:
    """A row of zeros, then expert by expert the answers [M, O] for the rows that `union_NE` marks.

    With `weights_NE` the weighted sum of each row's answers [N, O] instead.

    `request_REH` [R, E * H] is the request's share of all first layers, bias included, and `request_N` the request of
    each row; `items_IEH` [I * E, H] are the shares of prepared items, of which each row has that of `item_N`.
    `weights` holds as many tensors for each expert: the first layer's weight
    [H, D] if there are candidate columns, its bias [H] if there is no share; then by layer norm weight and bias
    if `epsilon` is positive, and the next layer's weight and bias. With `residual`, layers after the first whose inputs
    are as many as their outputs add their input.
    """
    settings = _Settings(activation, epsilon, residual)
    shares = _Shares(request_REH, candidate_ND, request_N, items_IEH, item_N, weights_NE)
    answers_MO: Tensor = _answers(_Torch(), shares, union_NE, weights, settings)
    return answers_MO


@expert_answers.register_fake
def _(  # noqa: PLR0913, PLR0917
    request_REH: Tensor | None,
    candidate_ND: Tensor | None,  # noqa: ARG001 the operator's signature
    request_N: Tensor | None,  # noqa: ARG001
    items_IEH: Tensor | None,
    item_N: Tensor | None,  # noqa: ARG001
    union_NE: Tensor,
    weights_NE: Tensor | None,
    weights: Sequence[Tensor],
    activation: str,  # noqa: ARG001
    epsilon: float,  # noqa: ARG001
    residual: bool,  # noqa: ARG001, FBT001
) -> Tensor:
    rows = union_NE.shape[0] if weights_NE is not None else torch.library.get_ctx().new_dynamic_size()
    return union_NE.new_empty((rows, _outputs(request_REH, items_IEH, union_NE, weights)), dtype=torch.float32)


def expert_answers_onnx(
    request: Any,
    candidate: Any,
    request_N: Any,
    items: Any,
    item_N: Any,
    union: Any,
    gate: Any,
    weights: Sequence[Any],
    *settings: Any,
) -> Any:
    """`expert_answers` in ONNX."""
    shares = _Shares(request, candidate, request_N, items, item_N, gate)
    return _answers(_Onnx(), shares, union, weights, _Settings(*settings))
