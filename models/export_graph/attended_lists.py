"""Attended histories in the graph: events and their keys once per request, then each candidate's attention over them.

Shape legend: R requests, N candidate rows, S slots, L request lists, F candidate ids, W columns of an event, P of a
target, H of a key, O outputs, V rows of the stacked tables, K embedding dim, I prepared items.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.graph_names import ITEM_ROWS, REQUEST_OF
from contract.schema import IdSpec
from models.export_graph.item_shares import PreparedItems
from models.export_graph.lookup import StackedTables, Tables, Tensors
from models.export_graph.pairing import request_index
from models.input_layout import PartLayout
from models.ranker import Ranker
from models.sequences import Attention, SequencePlan
from models.sequences.attended_histories import newest


class AttendedLists(nn.Module):
    """The columns [N, O] that attention makes of the request's histories."""

    def __init__(
        self, ranker: Ranker, stacked: StackedTables, candidate: PartLayout, items: PreparedItems | None
    ) -> None:
        """Take over a ranker's attention; `candidate` is what requests bring of candidates beside prepared `items`."""
        super().__init__()
        trained = ranker.attended
        assert trained is not None  # noqa: S101 the caller asks; this tells the type checker
        self.plans, self.offsets, self.list_places = trained.plans, stacked.offsets, trained.list_places
        self.dims = ranker.config.dims
        self.attentions = copy.deepcopy(trained.attentions).eval()
        targets = {spec.name: spec for plan in trained.plans for spec in plan.targets}
        self.targets = nn.ModuleDict(
            {name: _CandidateIds(spec, candidate, ranker.layouts[1], items) for name, spec in targets.items()}
        )

    def forward(self, tables: Tables, inputs: Tensors) -> Tensor:
        """Attend to each history."""
        ids = {name: target(inputs) for name, target in self.targets.items()}
        lengths_LR = inputs["request_list_lengths"]
        request_N = inputs.get(REQUEST_OF)
        if request_N is None:
            request_N = request_index(lengths_LR[0].unsqueeze(1), next(iter(ids.values())).unsqueeze(1))
        columns = []
        for plan, attention in zip(self.plans, self.attentions, strict=True):
            assert isinstance(attention, Attention)  # noqa: S101 the list holds these; this tells the type checker
            columns.append(self._attend(plan, attention, tables, inputs, ids, request_N))
        return torch.cat(columns, dim=1)

    def _attend(
        self,
        plan: SequencePlan,
        attention: Attention,
        tables: Tables,
        inputs: Tensors,
        ids: dict[str, Tensor],
        request_N: Tensor,
    ) -> Tensor:
        slots = _slots(inputs["request_list_lengths"][self.list_places[plan.lists[plan.main].name]], plan.slots)
        lists = [self._newest(spec, inputs, slots) for spec in plan.lists]
        events_RSW = torch.cat(
            [
                self._embedded(tables, spec, ids_RS, inside_RS)
                for spec, (ids_RS, inside_RS) in zip(plan.lists, lists, strict=True)
            ],
            dim=2,
        )
        keys_RSH = attention.keys(events_RSW)
        target_NP = torch.cat([self._embedded(tables, spec, ids[spec.name]) for spec in plan.targets], dim=1)
        inside_NS = lists[plan.main][1].index_select(0, request_N)
        if plan.searched is not None:
            found_NS = lists[plan.searched][0].index_select(0, request_N)
            inside_NS = inside_NS & plan.matches(found_NS, ids[plan.targets[plan.searched].name])
        events_NSW, keys_NSH = (each.index_select(0, request_N) for each in (events_RSW, keys_RSH))
        return attention.attend(events_NSW, keys_NSH, target_NP, inside_NS)

    def _embedded(self, tables: Tables, spec: IdSpec, ids: Tensor, inside: Tensor | None = None) -> Tensor:
        """A feature's embeddings of ids, zeros where there is none."""
        table_VK, rows = tables[self.dims.of(spec)], ids + self.offsets[spec.table_name]
        if inside is not None:
            rows = torch.where(inside, rows, table_VK.shape[0] - 1)
        return functional.embedding(rows, table_VK)

    def _newest(self, spec: IdSpec, inputs: Tensors, slots: int) -> tuple[Tensor, Tensor]:
        """A list's ids [R, S], 0 for those that are not rows of its table, and where there is one."""
        place = self.list_places[spec.name]
        ids_RS, inside_RS = newest(inputs["request_list_values"], inputs["request_list_lengths"], place, slots)
        return torch.where((ids_RS >= 0) & (ids_RS < spec.rows), ids_RS, 0), inside_RS


class _CandidateIds(nn.Module):
    """The candidates' ids [N] of a feature, 0 for those that are not rows of its table; prepared items bring theirs."""

    prepared_I: Tensor

    def __init__(self, spec: IdSpec, shown: PartLayout, whole: PartLayout, items: PreparedItems | None) -> None:
        super().__init__()
        self.rows = spec.rows
        self.prepared = items is not None and spec.name in items.names
        if items is not None and self.prepared:
            self.register_buffer("prepared_I", torch.from_numpy(items.inputs.ids[:, whole.ids.index(spec)]))
        else:
            self.column = shown.ids.index(spec)

    def forward(self, inputs: Tensors) -> Tensor:
        ids_N = self.prepared_I[inputs[ITEM_ROWS]] if self.prepared else inputs["candidate_ids"][:, self.column]
        return torch.where((ids_N >= 0) & (ids_N < self.rows), ids_N, 0)


def _slots(lengths_R: Tensor, most: int) -> int:
    """How many events the run's longest history has, one at least and `most` at most."""
    # No int() here, which would ask the tracer for the value: while tracing this is a symbol.
    slots: int = lengths_R.max().clamp(1, most).item()  # type: ignore[assignment]
    torch._check(slots >= 1)  # noqa: SLF001 the documented way to bound a size that data decides
    return slots
