"""What `benchmarks.training` compares with: fbgemm's fused tables, plain PyTorch, torch-rechub.

Shape legend: B rows, F ids, T tasks.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.training_world import BATCH, DENSE, DIM, EXPERT_WIDTHS, EXPERTS, IDS, TASKS, TOWER, World

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import ComputeDevice, EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen

Pass = Callable[[], None]
INPUTS = IDS * DIM + DENSE


class PlainMMoE(nn.Module):
    """A mixture as a textbook has it: a Linear an expert and layer, a softmax gate and a tower a task."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(INPUTS, EXPERT_WIDTHS[0]),
                nn.ReLU(),
                nn.Linear(EXPERT_WIDTHS[0], EXPERT_WIDTHS[1]),
                nn.ReLU(),
            )
            for _ in range(EXPERTS)
        )
        self.gates = nn.ModuleList(nn.Linear(INPUTS, EXPERTS) for _ in range(TASKS))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(EXPERT_WIDTHS[1], TOWER), nn.ReLU(), nn.Linear(TOWER, 1)) for _ in range(TASKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, T]."""
        answers = torch.stack([expert(x) for expert in self.experts], dim=1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(x), dim=1).unsqueeze(1)
            logits.append(tower(torch.bmm(weights.to(answers.dtype), answers).squeeze(1)))
        return torch.cat(logits, dim=1).float()


def _autocast(dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _loss(network: nn.Module, x: Tensor, labels: Tensor, dtype: torch.dtype | None) -> Tensor:
    with _autocast(dtype):
        logits = network(x)
    return functional.binary_cross_entropy_with_logits(logits, labels)


def floor_steps(world: World, dtype: torch.dtype | None) -> Pass:
    """Fused tables with row-wise Adagrad inside the backward pass, and the plain network."""
    torch.manual_seed(0)
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(world.table_rows, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)] * IDS,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.02,
    )
    network = PlainMMoE()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    offsets = torch.arange(IDS * BATCH + 1)

    def work() -> None:
        for ids, dense, labels in world.batches:
            optimizer.zero_grad()
            vectors = tables(ids.T.reshape(-1), offsets)
            _loss(network, torch.cat([vectors, dense], dim=1), labels, dtype).backward()
            optimizer.step()

    return work


def plain_steps(world: World, dtype: torch.dtype | None) -> Pass:
    """One sparse EmbeddingBag for all ids with Adagrad, and the network with fused Adam."""
    torch.manual_seed(0)
    table = nn.Embedding(world.table_rows * IDS, DIM, sparse=True)
    network = PlainMMoE()
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=1e-3, fused=True),
        torch.optim.Adagrad(table.parameters(), lr=0.02),
    ]
    first_F = torch.arange(IDS) * world.table_rows

    def work() -> None:
        for ids, dense, labels in world.batches:
            for optimizer in optimizers:
                optimizer.zero_grad()
            vectors = table(ids + first_F).flatten(1)
            _loss(network, torch.cat([vectors, dense], dim=1), labels, dtype).backward()
            for optimizer in optimizers:
                optimizer.step()

    return work


def rechub_steps(world: World, dtype: torch.dtype | None) -> Pass | None:
    """torch-rechub's MMoE from the same Parquet, with its trainer's optimiser; None where it is not installed."""
    if importlib.util.find_spec("torch_rechub") is None:
        return None
    features = import_module("torch_rechub.basic.features")
    sparse = [features.SparseFeature(f"id{n}", vocab_size=world.table_rows, embed_dim=DIM) for n in range(IDS)]
    model = import_module("torch_rechub.models.multi_task").MMOE(
        [*sparse, *(features.DenseFeature(f"x{n}") for n in range(DENSE))],
        ["classification"] * TASKS,
        n_expert=EXPERTS,
        expert_params={"dims": list(EXPERT_WIDTHS)},
        tower_params_list=[{"dims": [TOWER]}] * TASKS,
    )
    # What `MTLTrainer` takes where it is told nothing.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def work() -> None:
        for columns, labels in _from_parquet(world):
            optimizer.zero_grad()
            with _autocast(dtype):
                answers = model(columns)
            functional.binary_cross_entropy(answers.float(), labels).backward()
            optimizer.step()

    return work


def _from_parquet(world: World) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for batch in pq.ParquetFile(world.folder / "train").iter_batches(BATCH):
        columns = {name: torch.from_numpy(np.array(batch.column(name))) for name in batch.schema.names}
        ids = {name: values.long() for name, values in columns.items() if name.startswith("id")}
        dense = {name: values for name, values in columns.items() if name.startswith("x")}
        yield ids | dense, torch.stack([columns[f"label__task{n}"] for n in range(TASKS)], dim=1)
