"""TorchRec's planner, told what this machine has: which table lies on which rank, and in which memory."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from contract.errors import ConfigError
from contract.machine_memory import total_memory
from models.one_rank import OneRankSharder
from models.table_plan import TablePlace, size

with warnings.catch_warnings():
    # As in models/layers/embeddings.py: the CPU build warns, on import, of kernels that it does not have.
    warnings.simplefilter("ignore")
    from torchrec.distributed.embedding_types import EmbeddingComputeKernel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
    from torchrec.distributed.types import ShardingPlan, ShardingType

_SHARDINGS = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]
_FLOAT_BYTES = 4
_TINY_BYTES = 2**16
"""Tables up to here lie whole on one rank: to share out their rows costs more than it spares."""
_NOISY = ("torchrec", "root")


@dataclass(frozen=True)
class TableOptions:
    """How one table is trained, and where it lies (``table_wise`` or ``row_wise``); None: as all others."""

    rate: float | None = None
    decay: float | None = None
    optimizer: str = "row_wise_adagrad"
    sharding: str | None = None


class TableShape(NamedTuple):
    """Rows and width of a table."""

    rows: int
    dim: int

    @property
    def bytes(self) -> int:
        """Of its numbers, without the optimiser's state."""
        return self.rows * self.dim * _FLOAT_BYTES


@dataclass(frozen=True)
class RankMemory:
    """Bytes that one rank may count on: of the host, and of its card (0 without one)."""

    host: int
    card: int = 0

    def __str__(self) -> str:
        """For a person."""
        card = f"{size(self.card)} on its card and " if self.card else ""
        return f"{card}{size(self.host)} of the host's memory"


class PlainWiseSharder(OneRankSharder):
    """Offers row-wise sharding also on the CPU, where the planner does so only when asked; its answers are exact."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Table-wise and row-wise."""
        del compute_device_type
        return _SHARDINGS


def rank_memory(device: torch.device) -> RankMemory:
    """The least that any rank of the process group has, so that all make the same plan.

    Ranks of one machine share its memory, of which a control group (a container) may allow less than there is.
    """
    host = total_memory() // _ranks_here(dist.get_world_size())
    card = 0 if device.type == "cpu" else torch.cuda.get_device_properties(device).total_memory
    least = torch.tensor([host, card], dtype=torch.int64)
    if dist.get_world_size() > 1:
        dist.all_reduce(least, dist.ReduceOp.MIN)
    return RankMemory(*least.tolist())


def plan_on_machine(
    ranker: nn.Module, shapes: Mapping[str, TableShape], device: torch.device, tables: Mapping[str, TableOptions]
) -> ShardingPlan:
    """The plan for the process group's ranks and what they have; see `plan_tables`."""
    return plan_tables(ranker, shapes, dist.get_world_size(), device.type, rank_memory(device), tables)


def plan_tables(
    ranker: nn.Module,
    shapes: Mapping[str, TableShape],
    world: int,
    device: str,
    memory: RankMemory,
    tables: Mapping[str, TableOptions],
) -> ShardingPlan:
    """Where a ranker's tables of these shapes lie on so many ranks with so much memory each.

    One rank has each table whole: by rows, every step would sort ids by rank and ask the host for their number. Tables
    that a card's memory cannot hold lie in the host's, with a cache on the card. Tiny tables lie whole on some rank,
    too; not on each, as data-parallel ones would: those are the dense optimiser's, whose state no other number of ranks
    could go on with.

    Raises:
        ConfigError: a table is to be shared out by rows that leave a rank without any, beside tables of other widths,
            or the ranks' memory does not hold the tables.
    """
    # Fused kernels only: the planner would replicate small tables and leave them to the dense optimiser.
    kernels = [EmbeddingComputeKernel.FUSED.value]
    if device != "cpu":
        kernels.append(EmbeddingComputeKernel.FUSED_UVM_CACHING.value)
    constraints = {
        name: ParameterConstraints(
            sharding_types=_shardings(shapes, name, world, tables.get(name, TableOptions()).sharding),
            compute_kernels=kernels,
        )
        for name in shapes
    }
    with quiet():
        topology = Topology(
            world_size=world,
            compute_device=device,
            hbm_cap=memory.card or None,
            ddr_cap=memory.host,
            local_world_size=_ranks_here(world),
        )
        planner = EmbeddingShardingPlanner(topology=topology, constraints=constraints, debug=False)
        try:
            return planner.plan(ranker, [PlainWiseSharder()])
        except PlannerError as error:
            raise _no_plan(shapes, world, memory, tables) from error


def table_places(plan: ShardingPlan, tables: Mapping[str, TableOptions]) -> list[TablePlace]:
    """Where each table of a plan lies; the same on every rank."""
    places = []
    for sharding in plan.plan.values():
        for name, table in sharding.items():
            shards = table.sharding_spec.shards
            by_rank: dict[int, int] = {}
            for each in shards:
                rank, (rows, dim) = each.placement.rank(), each.shard_sizes
                by_rank[rank] = by_rank.get(rank, 0) + rows * dim * _FLOAT_BYTES
            rows = sum(each.shard_sizes[0] for each in shards)
            is_fixed = tables.get(name, TableOptions()).sharding is not None
            in_host = table.compute_kernel == EmbeddingComputeKernel.FUSED_UVM_CACHING.value
            places.append(
                TablePlace(name, rows, shards[0].shard_sizes[1], table.sharding_type, by_rank, is_fixed, in_host)
            )
    return places


@contextmanager
def quiet() -> Iterator[None]:
    """The planner and DistributedModelParallel warn of their own defaults, also with the defaults they ask for."""
    loggers = [logging.getLogger(name or None) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ranks_here(world: int) -> int:
    """How many ranks one machine has, which torchrun says; without it all are on this one."""
    return min(int(os.environ.get("LOCAL_WORLD_SIZE", world)), world)


def _shardings(shapes: Mapping[str, TableShape], name: str, world: int, sharding: str | None) -> list[str]:
    """The ways in which a table may be shared out.

    Raises:
        ConfigError: it is to be shared out by rows that leave a rank without any, beside tables of other widths.
    """
    rows = shapes[name].rows
    several_widths = len({shape.dim for shape in shapes.values()}) > 1
    empty = (world - 1) * -(-rows // world) >= rows
    if sharding == ShardingType.ROW_WISE.value and empty and several_widths and world > 1:
        # fbgemm tells neighbouring tables apart by their first rows, and takes an empty one for the next.
        message = (
            f"train.tables.{name}.sharding is row_wise, but {rows} rows leave one of {world} ranks without any, "
            "which tables of several widths do not allow: leave it out, or use fewer ranks"
        )
        raise ConfigError(message)
    if sharding is not None:
        return [sharding]
    whole = world == 1 or empty or shapes[name].bytes <= _TINY_BYTES
    return _SHARDINGS[:1] if whole else _SHARDINGS


def _no_plan(
    shapes: Mapping[str, TableShape], world: int, memory: RankMemory, tables: Mapping[str, TableOptions]
) -> ConfigError:
    largest = max(shapes, key=lambda name: shapes[name].bytes)
    fixed = [name for name in shapes if tables.get(name, TableOptions()).sharding is not None]
    limits = f", leave out train.tables.{fixed[0]}.sharding" if fixed else ""
    ranks = "one rank, which has" if world == 1 else f"{world} ranks, each of which has"
    return ConfigError(
        f"the embedding tables ({size(sum(shape.bytes for shape in shapes.values()))}, of which {largest} has "
        f"{size(shapes[largest].bytes)}) and what training needs beside them do not fit {ranks} {memory}: lower "
        f"model.embedding_dim or model.table_dims.{largest}, raise min_count of its feature{limits}, or use more "
        "machines"
    )
