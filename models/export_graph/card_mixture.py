"""The mixture of a level's experts for a card, in two forms with equal answers.

Wide: all first layers are one product, each further layer is one batched product of stacked weights. Grouped: the
operator ``com.microsoft.MoE``, which sorts rows by expert and runs one grouped product per layer over them.

Experts end with an activation, so neither form can weigh them before their last layer. The operator is therefore asked
for one expert a row, with weight 1, for as many copies of a row as its gates have slots; activation and weights follow
it. Any weights fit so, and all gates share one call.

Shape legend: N candidate rows, E experts of a bank, G gates, H hidden units, O outputs of an expert, P padded width,
S slots of all gates (experts of a row), M = N * S.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.experts.expert_mlp import Experts
from models.experts.level import Bank, Level
from models.export_graph.affine import Affine, join
from models.export_graph.blocks import expert_affines, expert_block
from models.export_graph.routing import Routes
from models.export_graph.split import InputParts, SplitInput, SplitLinear, rows_of

LAYERS = 2
"""What the operator computes."""
MULTIPLE, NARROWEST = 8, 16
"""Widths are padded to multiples of the one, for a card's kernels read 16 bytes at once, and to no less than the other,
below which they refuse."""
_NEVER = -1e4
"""A router's logit that a softmax turns into an exact 0, also in half precision."""


def misfit(level: Level) -> str:
    """Why the operator cannot compute a level's experts; empty if it can."""
    for bank in level.typed_banks:
        blocks = bank.experts.typed_blocks
        if len(blocks) != LAYERS:
            return f"com.microsoft.MoE has {LAYERS} layers, these experts have {len(blocks)}"
        if any(isinstance(block.norm, nn.GroupNorm) for block in blocks):
            return "com.microsoft.MoE has no layer norm between its layers"
        if any(block.residual for block in blocks):
            return "com.microsoft.MoE has no residual layers"
        if isinstance(blocks[0].activation, nn.GELU):
            return "com.microsoft.MoE approximates gelu by tanh, which moves answers by more than 1e-5"
    return ""


class WideMixture(nn.Module):
    """Every expert for every row, in a number of products that does not grow with the experts."""

    def __init__(self, banks: list[Bank], norm: nn.Module, parts: InputParts) -> None:
        """Take all experts of all banks."""
        super().__init__()
        self.networks = nn.ModuleList(StackedExperts(bank.experts, norm, parts) for bank in banks)

    def forward(self, inputs: list[SplitInput], routes: Routes) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        answers = [network(x) for network, x in zip(self.networks, inputs, strict=True)]
        answers_ENO = answers[0] if len(answers) == 1 else torch.cat(answers)
        weights_NGE = torch.stack(routes.weights, dim=1)
        mixtures_NGO = weights_NGE @ answers_ENO.transpose(0, 1)
        # To take one of one apart would still copy it.
        return [mixtures_NGO.squeeze(1)] if len(routes.weights) == 1 else list(mixtures_NGO.unbind(1))


class StackedExperts(nn.Module):
    """Experts of one bank: the first layers as one, the others stacked."""

    def __init__(self, experts: Experts, norm: nn.Module, parts: InputParts) -> None:
        """Fold the norms; `norm` stands before the first layers."""
        super().__init__()
        first = [affine.after(norm) for affine in expert_affines(experts, 0)]
        self.count = experts.count
        self.first = SplitLinear(join(first), parts)
        self.tail = StackedTail(experts, 0)
        self.rest = nn.ModuleList(StackedLayer(experts, layer) for layer in range(1, len(experts.blocks)))

    def forward(self, x: SplitInput) -> Tensor:
        """Every expert's answers for every row [E, N, O]."""
        hidden_NEH = self.first(x).unflatten(1, (self.count, -1))
        answers: Tensor = self.tail(hidden_NEH.transpose(0, 1))
        for layer in self.rest:
            answers = layer(answers)
        return answers


class StackedLayer(nn.Module):
    """One layer of all experts as one batched product."""

    weight_EDH: Tensor
    bias_E1H: Tensor

    def __init__(self, experts: Experts, layer: int) -> None:
        """Stack the folded maps."""
        super().__init__()
        maps = expert_affines(experts, layer)
        self.register_buffer("weight_EDH", torch.stack([each.weight_HD.t() for each in maps]).float().contiguous())
        self.register_buffer("bias_E1H", torch.stack([each.bias_H for each in maps]).float().unsqueeze(1))
        self.tail, self.residual = StackedTail(experts, layer), expert_block(experts, layer).residual

    def forward(self, x_END: Tensor) -> Tensor:
        """[E, N, D] -> [E, N, H]."""
        answer: Tensor = self.tail(x_END @ self.weight_EDH + self.bias_E1H)
        return x_END + answer if self.residual else answer


class StackedTail(nn.Module):
    """What follows a layer of all experts: a norm that cannot be folded, and the activation."""

    scale_E1H: Tensor
    shift_E1H: Tensor

    def __init__(self, experts: Experts, layer: int) -> None:
        """Take over the block's."""
        super().__init__()
        block = expert_block(experts, layer)
        self.activation, self.epsilon = type(block.activation)(), 0.0
        if isinstance(block.norm, nn.GroupNorm):
            self.epsilon = block.norm.eps
            self.register_buffer("scale_E1H", block.norm.weight.detach().unflatten(0, (experts.count, 1, -1)))
            self.register_buffer("shift_E1H", block.norm.bias.detach().unflatten(0, (experts.count, 1, -1)))

    def forward(self, x_ENH: Tensor) -> Tensor:
        """Same shape."""
        if self.epsilon:
            normed = functional.layer_norm(x_ENH, x_ENH.shape[-1:], eps=self.epsilon)
            x_ENH = normed * self.scale_E1H + self.shift_E1H
        answer: Tensor = self.activation(x_ENH)
        return answer


class GroupedMixture(nn.Module):
    """Only the selected experts, all gates' slots in one call of the operator a bank."""

    def __init__(self, level: Level, norm: nn.Module, parts: InputParts) -> None:
        """Take all experts; `misfit` must have nothing against them."""
        super().__init__()
        banks = level.typed_banks
        self.banks = nn.ModuleList(GroupedExperts(bank.experts, norm, parts) for bank in banks)
        self.spans = [slice(bank.first, bank.first + bank.experts.count) for bank in banks]
        self.shares = level.slots()

    def forward(self, inputs: list[SplitInput], routes: Routes) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        mixtures: dict[int, Tensor] = {}
        for run, x, span, shares in zip(self.banks, inputs, self.spans, self.shares, strict=True):
            tops = [routes.weights[gate][:, span].topk(slots, dim=1) for gate, slots in shares]
            answers_NSO = run(x, torch.cat([top.indices for top in tops], dim=1))
            parts = answers_NSO.split([slots for _, slots in shares], dim=1)
            for (gate, _), top, part in zip(shares, tops, parts, strict=True):
                mixture = (part * top.values.unsqueeze(2)).sum(dim=1)
                mixtures[gate] = mixtures[gate] + mixture if gate in mixtures else mixture
        return [mixtures[gate] for gate in range(len(routes.weights))]


def slots_of(level: Level) -> int:
    """How many experts a row is computed by, over all gates of a level, an expert of two gates counting twice."""
    return sum(each.most for own in level.slots() for each in own)


class GroupedExperts(nn.Module):
    """Experts of one bank in the layout of the operator: outputs are padded to its inputs' width, or those to them."""

    weight1_EHP: Tensor
    bias1_EH: Tensor
    weight2_EPH: Tensor
    bias2_EP: Tensor
    numbers_E: Tensor

    def __init__(self, experts: Experts, norm: nn.Module, parts: InputParts) -> None:
        """Fold the norms; `norm` stands before the first layers."""
        super().__init__()
        first = [affine.after(norm) for affine in expert_affines(experts, 0)]
        second = expert_affines(experts, 1)
        inputs, hidden = first[0].weight_HD.shape[1], _padded(first[0].weight_HD.shape[0])
        # With one request per run its share is the same for all rows: a bias, computed when the graph runs.
        alone = parts.one_request and 0 < parts.request < inputs
        self.request: SplitLinear | None = None
        if alone:
            maps = [_grown(affine, affine.weight_HD.shape[1], hidden).columns(0, parts.request) for affine in first]
            self.request = SplitLinear(join(maps), InputParts(parts.request))
            first = [affine.columns(parts.request, inputs) for affine in first]
            inputs -= parts.request
        self.inputs, self.outputs = inputs, experts.outputs
        self.width = _padded(max(inputs, experts.outputs))
        first = [_grown(affine, self.width, hidden) for affine in first]
        second = [_grown(affine, hidden, self.width) for affine in second]
        stacked = {
            "weight1_EHP": [each.weight_HD for each in first],
            "bias1_EH": [each.bias_H for each in first],
            "weight2_EPH": [each.weight_HD for each in second],
            "bias2_EP": [each.bias_H for each in second],
        }
        for name, tensors in stacked.items():
            self.register_buffer(name, torch.stack(tensors).float().contiguous())
        self.register_buffer("numbers_E", torch.arange(experts.count))
        self.activation = type(expert_block(experts, 1).activation)()
        self.operator = "relu" if isinstance(self.activation, nn.ReLU) else "silu"

    def forward(self, x: SplitInput, experts_NS: Tensor) -> Tensor:
        """The answers [N, S, O] of the experts `experts_NS` for each row."""
        bias_EH = self.bias1_EH
        x_ND = rows_of(x)
        if self.request is not None and x.request_RD is not None and x.candidate_ND is not None:
            bias_EH = self.request(SplitInput(x.request_RD, None)).reshape(bias_EH.shape)
            x_ND = x.candidate_ND
        slots = experts_NS.shape[1]
        x_NP = functional.pad(x_ND, (0, self.width - self.inputs)) if self.width > self.inputs else x_ND
        x_MP = x_NP if slots == 1 else x_NP.unsqueeze(1).expand(-1, slots, -1).flatten(0, 1)
        chosen_ME = experts_NS.reshape(-1, 1) == self.numbers_E
        answers_MP = grouped(
            x_MP, chosen_ME, (self.weight1_EHP, bias_EH, self.weight2_EPH, self.bias2_EP), self.operator
        )
        answers: Tensor = self.activation(answers_MP[:, : self.outputs])
        return answers.unflatten(0, (-1, slots))


def grouped(x_MP: Tensor, chosen_ME: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], activation: str) -> Tensor:
    """The operator, one expert a row [M, P]; it stands for itself in a trace alone, and computes nothing in torch.

    Source: onnxruntime, docs/ContribOperators.md, com.microsoft.MoE.
    """
    weight1_EHP, bias1_EH, weight2_EPH, bias2_EP = weights
    router_ME = torch.where(chosen_ME, 0.0, _NEVER)
    return torch.onnx.ops.symbolic(
        "com.microsoft::MoE",
        (x_MP, router_ME, weight1_EHP, bias1_EH, weight2_EPH, bias2_EP),
        {"activation_type": activation, "k": 1, "normalize_routing_weights": 1},
        dtype=x_MP.dtype,
        shape=x_MP.shape,
        version=1,
    )


def _padded(width: int) -> int:
    return max(NARROWEST, -(-width // MULTIPLE) * MULTIPLE)


def _grown(affine: Affine, inputs: int, outputs: int) -> Affine:
    """The map with more inputs, which it ignores, and more outputs, which are 0."""
    below, right = outputs - affine.weight_HD.shape[0], inputs - affine.weight_HD.shape[1]
    return Affine(functional.pad(affine.weight_HD, (0, right, 0, below)), functional.pad(affine.bias_H, (0, below)))
