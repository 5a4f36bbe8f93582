"""What towers read beside their mixtures, in the graph: the request's share of it computed once.

Shape legend: N candidate rows, T tasks, H hidden units of one task's personal gate, C components of monotone features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.export_graph.affine import Affine, join
from models.export_graph.routing import RoutedColumns
from models.export_graph.split import InputParts, SplitInput, SplitLinear
from models.network import Network


class SideValues(NamedTuple):
    """For each task the prior columns' share of its gate's hidden units [N, H], and the components [N, C]."""

    personal: list[Tensor] | None
    monotone_NC: Tensor | None


class SideGraph(nn.Module):
    """From the input matrix by parts to what all towers read beside their mixtures."""

    def __init__(self, network: Network, parts: InputParts) -> None:
        """Take the columns that the network's towers read."""
        super().__init__()
        self.personal: SplitLinear | None = None
        self.monotone: SplitLinear | None = None
        units = [tower.personal for tower in network.towers.typed_towers if tower.personal is not None]
        if units:
            norm = network.graph_norm()
            routed = RoutedColumns(list(network.side.personal), parts, network.inputs, norm, of_request=False)
            maps = [Affine.of(unit.prior.weight, unit.prior.bias) for unit in units]
            self.personal = routed.projection(join(maps))
            self.hidden = units[0].prior.out_features
        if network.side.monotone:
            columns = list(network.side.monotone)
            as_is = Affine(torch.eye(len(columns), dtype=torch.float64), torch.zeros(len(columns), dtype=torch.float64))
            routed = RoutedColumns(columns, parts, network.inputs, nn.Identity(), of_request=False)
            self.monotone = routed.projection(as_is)

    def forward(self, given: SplitInput) -> SideValues:
        """The values for every candidate row."""
        personal = None if self.personal is None else list(self.personal(given).split(self.hidden, dim=1))
        return SideValues(personal, None if self.monotone is None else self.monotone(given))
