"""The whole ranker as the module that becomes the graph: lookup, network, towers, answers.

Shape legend: R requests, N candidate rows, T tasks, V rows of the stacked tables, K embedding dim, D columns, E
experts of a gate's level.
"""

import torch
from torch import Tensor, nn

from contract.graph_names import GATE_OUTPUT, ITEM_ROWS, MOST_EXPERTS, REQUEST_OF, SHARES
from models.export_graph.attended_lists import AttendedLists
from models.export_graph.exported_network import Form, NetworkGraph
from models.export_graph.exported_towers import towers_graph
from models.export_graph.item_shares import PreparedItems, item_rows
from models.export_graph.lookup import PartLookup, TableHolder, Tensors, stacked_tables
from models.export_graph.pairing import pair_add
from models.export_graph.routing import static_weights
from models.export_graph.shared_tables import PreparedShares
from models.export_graph.side_graph import SideGraph
from models.export_graph.split import InputParts, SplitInput
from models.input_layout import layouts
from models.ranker import Ranker


class ServingGraph(TableHolder):
    """Answers by task [N] from the graph's inputs by name. `outputs`: what the graph calls what it answers."""

    routing_ids_I: Tensor

    def __init__(
        self,
        ranker: Ranker,
        form: Form,
        items: PreparedItems | None = None,
        *,
        shares: PreparedShares | None = None,
        one_request: bool = False,
    ) -> None:
        """Rebuild a trained ranker (plain, on the CPU) in one of the mixture's forms.

        With `items`, what hangs on them alone is computed here and now, and the graph takes their rows instead.
        With `shares` it takes each candidate's sum of prepared rows. `one_request`: each run has one request, never one
        for each candidate.

        Raises:
            ExportError: items are given, and the model's first layer has no share that could be prepared.
        """
        super().__init__()
        config = ranker.config
        stacked = stacked_tables(ranker)
        self.hold_tables(stacked.by_dim)
        lean = items if shares is None else shares
        shown = layouts(ranker.schema if lean is None else lean.lean(ranker.schema))
        self.parts = nn.ModuleList(PartLookup(layout, stacked.offsets, config.dims) for layout in shown)
        rows = None
        if items is not None:
            whole = PartLookup(ranker.layouts[1], stacked.offsets, config.dims)
            rows = item_rows(items, whole, stacked.by_dim, ranker.layouts[1])
        self.attended = AttendedLists(ranker, stacked, shown[1], items) if ranker.attended is not None else None
        parts = InputParts(
            ranker.layouts[0].width(config.dims), rows, one_request, None if shares is None else shares.left
        )
        self.one_request = one_request
        self.network = NetworkGraph(ranker.network, config, parts, form)
        self.side = SideGraph(ranker.network, parts)
        self.chain = ranker.network.towers.chain
        self.towers = towers_graph(ranker.network.towers, ranker.schema.tasks, self.network.task_streams)
        self.routing_id = ranker.routing_id
        self.routes_by_item = False
        if ranker.routing_id is not None:
            part, column = ranker.routing_id
            spec = ranker.layouts[part].ids[column]
            self.routes_by_item = items is not None and spec.name in items.names
            if items is not None and self.routes_by_item:
                ids_I = torch.from_numpy(items.inputs.ids[:, column])
                self.register_buffer("routing_ids_I", torch.where((ids_I >= 0) & (ids_I < spec.rows), ids_I, 0))
            else:
                self.routing_id = part, shown[part].ids.index(spec)
        gates = 0 if form == "static" else len(ranker.network.typed_gates)
        self.outputs = [task.name for task in ranker.schema.tasks] + [f"{GATE_OUTPUT}{gate}" for gate in range(gates)]

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """One answer [N] a task, in the schema's order, and behind them each gate's weights [N, E]."""
        tables = self.tables()
        request, candidate = (part(tables, inputs) for part in self.parts)
        if self.attended is not None:
            columns = [*([] if candidate is None else [candidate]), self.attended(tables, inputs)]
            candidate = torch.cat(columns, dim=1)
        variants = (inputs.get(name) for name in (REQUEST_OF, ITEM_ROWS, SHARES, MOST_EXPERTS))
        given = SplitInput(request, candidate, *variants)
        mixtures, weights = self.network(given, self._routing_ids(inputs, given))
        return (*self.chain.multiply(self.towers(mixtures, self.side(given))), *weights)

    def _routing_ids(self, inputs: Tensors, given: SplitInput) -> Tensor | None:
        if self.routing_id is None:
            return None
        if self.routes_by_item:
            return self.routing_ids_I[inputs[ITEM_ROWS]]
        part, column = self.routing_id
        lookup = self.parts[part]
        assert isinstance(lookup, PartLookup)  # noqa: S101 the list holds lookups; this tells the type checker
        ids = lookup.known_ids(inputs)[:, column]
        nothing_N1 = given.nothing(torch.int64)
        if part == 1 or nothing_N1 is None:
            return ids
        return pair_add(ids.unsqueeze(1), nothing_N1, inputs.get(REQUEST_OF)).squeeze(1)


def describe_gates(ranker: Ranker, form: Form) -> list[dict[str, object]]:
    """Each gate's level and tasks, in the order of the graph's outputs; a static one's weights [E], for it has none."""
    tasks = [task.name for task in ranker.schema.tasks]
    described: list[dict[str, object]] = []
    for place, level in enumerate(ranker.network.typed_levels):
        static = static_weights(level) if form == "static" else None
        for number, gate in enumerate(level.plan.gates):
            served: dict[str, object] = {
                "level": place,
                "experts": level.plan.experts,
                "tasks": [tasks[task] for task in gate.tasks],
            }
            if static is not None:
                used = zip(static.experts, static.weights_GE[number].tolist(), strict=True)
                weights = dict.fromkeys(range(level.plan.experts), 0.0) | dict(used)
                served["weights"] = [weights[expert] for expert in range(level.plan.experts)]
            described.append(served)
    return described
