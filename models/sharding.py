"""Sharding and optimisers: the only file that knows TorchRec's DistributedModelParallel.

One code path for every world size, 1 too, on the CPU (gloo) and on CUDA (nccl). Embedding tables lie whole on one rank
or by rows on all, as the planner decides; they are updated by row-wise Adagrad inside the backward pass. All else is
replicated and updated by AdamW.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore, PrefixStore
from torch.distributed.rendezvous import rendezvous

from models.layers.global_batch_norm import over_all_ranks
from models.ranker import Ranker
from models.table_plan import TablePlace
from models.table_planner import (
    PlainWiseSharder,
    TableOptions,
    TableShape,
    plan_on_machine,
    quiet,
    table_places,
)

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.distributed import DistributedModelParallel
    from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
    from torchrec.optim import SGD, Adagrad, CombinedOptimizer, KeyedOptimizerWrapper, RowWiseAdagrad
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
    from torchrec.optim.optimizers import in_backward_optimizer_filter

# torchrec still calls the collectives by the names that torch is about to drop.
warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)

_GROUPS = count()
"""Numbers the groups of a process; all ranks make the same ones."""
TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others before it gives up."""
_TABLE_OPTIMIZERS = {"row_wise_adagrad": RowWiseAdagrad, "adagrad": Adagrad, "sgd": SGD}


@dataclass(frozen=True)
class LearningRates:
    """Learning rates by what is learned; weight decay applies to matrices of the network, and to rows of tables."""

    network: float
    gates: float
    embeddings: float
    weight_decay: float = 0.0
    embedding_decay: float = 0.0
    tables: Mapping[str, TableOptions] = field(default_factory=dict)
    """What single tables have in place of `embeddings`, `embedding_decay` and row-wise Adagrad."""


class Sharded:
    """A ranker under DistributedModelParallel with its optimisers.

    `model` is called as the ranker is; `ranker` is the module inside, whose tables are replaced by shards;
    `optimizer` updates everything in one step.
    """

    def __init__(self, model: DistributedModelParallel, rates: LearningRates) -> None:
        """Build the optimisers of a model that lies on its device."""
        self.model = model
        self.ranker = cast("Ranker", model.module)
        self._rates = rates
        self.optimizer = _optimizer(model, rates)
        self.beside: dict[str, dict[str, Tensor]] = {}
        """Tensors by name that a checkpoint keeps beside the model: averages of weights, for example."""
        # Found once: to walk all modules by name took a tenth of a small model's step.
        self._dense = dict(in_backward_optimizer_filter(model.named_parameters()))
        self._groups = [(group, float(group["lr"])) for group in self.optimizer.param_groups]

    def table_places(self) -> list[TablePlace]:
        """Where each table lies; the same on every rank."""
        return table_places(self.model.plan, self._rates.tables)

    def scale_learning_rates(self, factor: float, *, tables: float | None = None) -> None:
        """Set every learning rate to `factor` times its configured value; that of the tables to `tables` times."""
        for group, rate in self._groups:
            group["lr"] = rate * factor
        if tables is not None:
            for group, rate in self._of_tables():
                group["lr"] = rate * tables

    @contextmanager
    def rates_on_device(self, factor: Tensor) -> Iterator[None]:
        """Let the network's optimiser read its rates from the device, `factor` times what is configured."""
        network = self._groups[len(self._of_tables()) :]
        before = [group["lr"] for group, _ in network]
        for group, rate in network:
            group["lr"] = rate * factor
        try:
            yield
        finally:
            for (group, _), own in zip(network, before, strict=True):
                group["lr"] = own

    def _of_tables(self) -> list[tuple[dict[str, Any], float]]:
        return self._groups[: len(self.model.fused_optimizer.param_groups)]

    def named_dense_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the tables, which are updated inside the backward pass."""
        return self._dense

    def dense_parameters(self) -> list[nn.Parameter]:
        """The same without their names."""
        return list(self._dense.values())

    def skip_update(self, skipped: Tensor) -> None:
        """Whether the optimiser's next step is to change nothing but the tables, a bool that may lie on the card."""
        # As `torch.amp.GradScaler` tells fused optimisers, whose kernels then leave weights and state alone.
        for _, keyed in self.optimizer.optimizers:
            inner = getattr(keyed, "_optimizer", None)
            if isinstance(inner, torch.optim.AdamW):
                inner.found_inf = skipped.float()  # type: ignore[attr-defined] # read by name

    def clip_gradients(self, limit: float) -> Tensor:
        """Bound the norm of the gradients of everything but the tables, which are updated by now; the norm before."""
        return torch.nn.utils.clip_grad_norm_(self.dense_parameters(), limit)


def shard(ranker: Ranker, device: torch.device, rates: LearningRates) -> Sharded:
    """Shard a ranker whose tables lie on the meta device, or keep those of a plain one; needs `process_group`.

    Every rank plans by itself from the same inputs, so none can wait for a plan that failed elsewhere. On several ranks
    the tables start from the same numbers as on one, and batch norms take their statistics from all ranks' rows.
    """
    several = dist.get_world_size() > 1
    if several:
        over_all_ranks(ranker)
    tables = [] if ranker.embeddings is None else ranker.embeddings.embedding_bag_configs()
    random_state = _random_state(device)
    shapes = {table.name: TableShape(table.num_embeddings, table.embedding_dim) for table in tables}
    with quiet():
        if ranker.embeddings is not None:
            _update_in_backward(ranker.embeddings, rates)
        model = DistributedModelParallel(
            ranker,
            device=device,
            plan=plan_on_machine(ranker, shapes, device, rates.tables),
            sharders=[PlainWiseSharder()],
            # One rank has nobody to take means with: DistributedDataParallel would copy gradients for nothing.
            init_data_parallel=several,
            data_parallel_wrapper=DefaultDataParallelWrapper(static_graph=False, find_unused_parameters=False),
        )
    # Data-parallel wrapping would move all but the tables to the device; tables that were sharded are there.
    model.to(device)
    if several:
        _initialise_as_one_rank(model, tables, device, random_state)
    return Sharded(model, rates)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@torch.no_grad()
def _initialise_as_one_rank(
    model: DistributedModelParallel, tables: list[EmbeddingBagConfig], device: torch.device, random_state: Tensor
) -> None:
    # Ranks that seed alike would give each shard of a table the same numbers: rows r and r + n/2 would start equal.
    (torch.set_rng_state if device.type == "cpu" else torch.cuda.set_rng_state)(random_state)
    if device.type == "cpu":
        # On one rank, fbgemm fills every table once before torchrec initialises them one by one.
        for table in tables:
            torch.empty(table.num_embeddings, table.embedding_dim).uniform_()
    state = model.state_dict()
    for table in tables:
        whole = torch.empty(table.num_embeddings, table.embedding_dim, device=device)
        table.init_fn(whole)
        for shard_ in state[f"embeddings.embedding_bags.{table.name}.weight"].local_shards():
            first, column = shard_.metadata.shard_offsets
            rows, columns = shard_.metadata.shard_sizes
            shard_.tensor.copy_(whole[first : first + rows, column : column + columns])


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the ranks that torchrun started; a process on its own is a group of one.

    A group that exists already is used and left alone.
    """
    if dist.is_initialized():
        yield
        return
    # Wishes and counts of the CPU travel by gloo also where tensors travel by nccl.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ:
        store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
        # After a worker was killed and all were started again, the store still holds the addresses of the dead; after
        # a run of these processes, that run's.
        name = f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-{next(_GROUPS)}"
        attempt = PrefixStore(name, store)
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=world, timeout=TIMEOUT)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def best_device() -> torch.device:
    """This rank's CUDA device if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _update_in_backward(embeddings: EmbeddingBagCollection, rates: LearningRates) -> None:
    for name, bag in embeddings.embedding_bags.items():
        options = rates.tables.get(name, TableOptions())
        rate = rates.embeddings if options.rate is None else options.rate
        decay = rates.embedding_decay if options.decay is None else options.decay
        settings = {"lr": rate, "weight_decay": decay}
        apply_optimizer_in_backward(_TABLE_OPTIMIZERS[options.optimizer], bag.parameters(), settings)


def _optimizer(model: DistributedModelParallel, rates: LearningRates) -> CombinedOptimizer:
    gates: dict[str, Tensor] = {}
    matrices: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}
    for name, parameter in in_backward_optimizer_filter(model.named_parameters()):
        if ".gates." in name:
            gates[name] = parameter
        else:
            (matrices if parameter.ndim > 1 else vectors)[name] = parameter
    groups = [
        ("gates", gates, rates.gates, 0.0),
        ("matrices", matrices, rates.network, rates.weight_decay),
        ("vectors", vectors, rates.network, 0.0),
    ]
    dense = [
        (name, KeyedOptimizerWrapper(parameters, _AdamW(rate, decay)))
        for name, parameters, rate, decay in groups
        if parameters
    ]
    return CombinedOptimizer([("tables", model.fused_optimizer), *dense])


@dataclass(frozen=True)
class _AdamW:
    rate: float
    decay: float

    def __call__(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        # On a card the step's number lies there too, so that nothing waits for the host.
        on_card = parameters[0].is_cuda
        return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.decay, fused=True, capturable=on_card)
