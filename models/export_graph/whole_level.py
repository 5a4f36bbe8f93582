"""A level whose experts read shares of the input matrix, as one whose experts read it whole, with zeros elsewhere.

So the graph splits first layers by part as it does for every architecture. What it costs are products with zeros: of
the embeddings' columns, each expert's first layer needs one share in as many as there are streams.

Shape legend: S streams, W columns of a stream, D columns of the input matrix, H outputs.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.experts.level import Level
from models.export_graph.affine import Affine
from models.export_graph.blocks import expert_block, folded
from models.network import Network


def first_level(network: Network) -> Level:
    """The first level, over the input matrix as its one stream."""
    level = network.typed_levels[0]
    if not network.plan.own_embeddings:
        return level
    whole = copy.deepcopy(level)
    for bank in whole.typed_banks:
        block = expert_block(bank.experts, 0)
        assert isinstance(block.linear, nn.Linear)  # noqa: S101 the first layer is; this tells the type checker
        affine = Affine.of(block.linear.weight, block.linear.bias)
        block.linear = folded(_over_all(affine, network.streams_SW[list(bank.reads)].flatten(), network.inputs))
        bank.reads = (0,)
    for gate, plan in zip(whole.typed_gates, whole.plan.gates, strict=True):
        if gate.projection is not None and not network.routes_by_columns:
            affine = Affine.of(gate.projection.weight, gate.projection.bias).after(gate.norm)
            gate.projection = folded(_over_all(affine, network.streams_SW[list(plan.reads)].flatten(), network.inputs))
            gate.norm = nn.Identity()
    gates = tuple(replace(gate, reads=(0,)) for gate in whole.plan.gates)
    whole.plan = replace(whole.plan, gates=gates, sets=tuple(replace(each, reads=(0,)) for each in whole.plan.sets))
    return whole


def _over_all(affine: Affine, columns: Tensor, width: int) -> Affine:
    """A map of some columns, of which one may occur twice, as a map of all."""
    weight_HD = affine.weight_HD.new_zeros(affine.weight_HD.shape[0], width)
    return Affine(torch.index_add(weight_HD, 1, columns.cpu(), affine.weight_HD), affine.bias_H)
