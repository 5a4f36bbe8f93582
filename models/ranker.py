"""The ranker: embeddings and dense columns into a mixture of experts with one output per task.

It is a plain single-device model that knows nothing of sharding; features are picked BY NAME from the embedding
collection's answer, whose column order changes with a sharding plan.

Shape legend: B rows, T tasks, D columns of the input matrix.
"""

import torch
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.schema import Schema
from models.gates import HashConfig, MaskMoEConfig, Routing
from models.id_dropout import IdDropout
from models.input_layout import PartLayout, layouts
from models.layers.dense import DenseColumns
from models.layers.dropout import Dropout
from models.layers.embeddings import KeyedJaggedTensor, embedding_collection
from models.list_counts import ids_per_feature
from models.model_config import ModelConfig
from models.network import Network, NetworkOutput
from models.ranker_tensors import PackedIds, RankerOutput, TensorInputs, TensorPart, pack_ids
from models.sequences import network_columns, plan_sequences
from models.sequences.attended_histories import Attended, AttendedHistories, RowIds


class Ranker(nn.Module):
    """A mixture-of-experts ranker for one schema."""

    base_T: Tensor
    scale_T: Tensor
    binary_T: Tensor

    def __init__(self, schema: Schema, config: ModelConfig, device: torch.device | None = None) -> None:
        """Build the model; embedding tables lie on `device` (``meta`` for those that will be sharded).

        Raises:
            ConfigError: the schema has no input, or lacks the routing id, a feature that attends a history, or a table
                with columns of its own.
        """
        super().__init__()
        self.layouts = layouts(schema)
        self.routing_id = _routing_column(self.layouts, config)
        if self.routing_id is not None and isinstance(config.gate, HashConfig | MaskMoEConfig):
            part, column = self.routing_id
            config = config.model_copy(update={"gate": config.gate.over(self.layouts[part].ids[column].rows)})
        self.schema, self.config = schema, config
        _require_tables(config, schema)
        self.width = sum(layout.width(config.dims) for layout in self.layouts)
        if self.width == 0:
            message = "the schema has no features; a ranker needs at least one"
            raise ConfigError(message)
        plans = plan_sequences(schema, config.sequences)
        self.attended = AttendedHistories(plans, schema, config.dims) if plans else None
        self.embeddings = embedding_collection(
            schema,
            config.dims,
            config.embedding_init,
            device or torch.device("cpu"),
            None if self.attended is None else self.attended.tables,
        )
        self.dense = nn.ModuleList(DenseColumns(layout) for layout in self.layouts)
        self.id_dropout = IdDropout(schema, self.layouts, config)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        features = network_columns(schema, config.dims, config.sequences)
        self.network = Network(features, schema.tasks, config)
        regression = [task.kind == "regression" for task in schema.tasks]
        base = [task.base_rate if r else 0.0 for task, r in zip(schema.tasks, regression, strict=True)]
        spread = [max(task.spread, 1e-6) if r else 1.0 for task, r in zip(schema.tasks, regression, strict=True)]
        self.register_buffer("base_T", torch.tensor(base), persistent=False)
        self.register_buffer("scale_T", torch.tensor(spread), persistent=False)
        self.register_buffer("binary_T", ~torch.tensor(regression), persistent=False)

    def forward(self, inputs: TensorInputs) -> RankerOutput:
        """Score the candidate rows; a single request row is repeated for all of them."""
        paired = inputs.paired()
        columns_BD, masked_BR = self._columns(paired)
        output: NetworkOutput = self.network(columns_BD, self.routing_ids(paired), masked_BR)
        penalties = _sum_penalties(output.routings)
        return RankerOutput(output.outputs_BT, penalties, output.routings, columns_BD, output.members)

    def predictions(self, logits_BT: Tensor) -> Tensor:
        """Answers as served [B, T]: probabilities, and regression values on the label's scale."""
        return torch.where(self.binary_T, logits_BT.sigmoid(), self.base_T + self.scale_T * logits_BT)

    def columns(self, inputs: TensorInputs) -> Tensor:
        """The network's input matrix [B, D] of paired inputs, request columns first, attended histories last."""
        return self._columns(inputs)[0]

    def _columns(self, inputs: TensorInputs) -> tuple[Tensor, Tensor | None]:
        """The input matrix, and the attended histories' columns of it once more with some events left out."""
        vectors = self._embed(inputs) if self.embeddings is not None else {}
        columns: list[Tensor] = []
        masked_BR: Tensor | None = None
        for layout, part, dense in zip(self.layouts, inputs, self.dense, strict=True):
            columns += [self.embedding_dropout(vectors[spec.name]) for spec in (*layout.ids, *layout.lists)]
            columns += dense(part.dense_ND)
        if self.attended is not None:
            request, candidate = inputs
            ids = RowIds(request.list_values_V, request.list_lengths_LN, candidate.ids_NF)
            contrast = self.config.history_contrast
            mask = contrast.mask if contrast is not None and self.training else 0.0
            attended: Attended = self.attended(vectors, ids, mask)
            columns.append(self.embedding_dropout(attended.columns_BO))
            masked_BR = attended.masked_BO
        return torch.cat(columns, dim=1), masked_BR

    def routing_ids(self, inputs: TensorInputs) -> Tensor | None:
        """The ids [B] that a hashing gate routes by, if configured."""
        if self.routing_id is None:
            return None
        part, column = self.routing_id
        return inputs[part].ids_NF[:, column]

    def table_weights(self) -> dict[str, Tensor]:
        """Each embedding table [rows, its columns] by name."""
        if self.embeddings is None:
            return {}
        return {name: bag.weight for name, bag in self.embeddings.embedding_bags.items()}

    def _embed(self, inputs: TensorInputs) -> dict[str, Tensor]:
        specs = [spec for layout in self.layouts for spec in (*layout.ids, *layout.lists)]
        packed = pack_ids(tuple(inputs))
        counts = _ids_per_feature(inputs)
        if self.training:
            packed = self.id_dropout(packed, counts)
        names = [spec.name for spec in specs]
        if self.attended is not None:
            slots = self.attended.slot_ids(packed.values_V, packed.lengths_FN, len(self.layouts[0].ids))
            names += [slot.name for slot in slots]
            packed = PackedIds(
                torch.cat([packed.values_V, *(slot.values_V for slot in slots)]),
                torch.cat([packed.lengths_FN, torch.stack([slot.lengths_B for slot in slots])]),
            )
            counts = None
        lengths = packed.lengths_FN.reshape(-1)
        jagged = KeyedJaggedTensor(keys=names, values=packed.values_V, lengths=lengths, length_per_key=counts)
        assert self.embeddings is not None  # noqa: S101 the caller checks; this tells the type checker
        vectors: dict[str, Tensor] = self.embeddings(jagged).to_dict()
        for layout, part in zip(self.layouts, inputs, strict=True):
            _average(vectors, layout, part)
        return vectors


def _ids_per_feature(inputs: TensorInputs) -> list[int] | None:
    request, candidate = inputs
    singles = request.ids_NF.shape[1], candidate.ids_NF.shape[1]
    lists = request.list_lengths_LN.shape[0], candidate.list_lengths_LN.shape[0]
    return ids_per_feature(inputs.rows, singles, lists)


def _average(vectors: dict[str, Tensor], layout: PartLayout, part: TensorPart) -> None:
    # Tables pool by sum, so that features with the same table may differ in pooling; the mean is taken here.
    for spec, lengths in zip(layout.lists, part.list_lengths_LN, strict=True):
        if spec.pooling == "mean":
            vectors[spec.name] = vectors[spec.name] / lengths.clamp(min=1).unsqueeze(1)


def _require_tables(config: ModelConfig, schema: Schema) -> None:
    unknown = sorted(config.table_dims.keys() - schema.tables().keys())
    if unknown:
        known = ", ".join(schema.tables()) or "none"
        message = f"model.table_dims names {', '.join(unknown)}, which are not embedding tables; there are: {known}"
        raise ConfigError(message)


def _routing_column(parts: tuple[PartLayout, PartLayout], config: ModelConfig) -> tuple[int, int] | None:
    if not isinstance(config.gate, HashConfig | MaskMoEConfig):
        return None
    if isinstance(config.gate, MaskMoEConfig) and config.routing not in {"all", "history"}:
        message = f"gate mask_moe weighs experts row by row, so model.routing cannot be {config.routing}: use all"
        raise ConfigError(message)
    for index, layout in enumerate(parts):
        for column, spec in enumerate(layout.ids):
            if spec.name == config.gate.feature:
                return index, column
    known = ", ".join(spec.name for layout in parts for spec in layout.ids) or "none"
    message = f"gate.feature is {config.gate.feature!r}, which is not an id feature; the id features are: {known}"
    raise ConfigError(message)


def _sum_penalties(routings: tuple[Routing, ...]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for routing in routings:
        for name, penalty in routing.penalties.items():
            total[name] = total[name] + penalty if name in total else penalty
    return total
