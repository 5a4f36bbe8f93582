"""Sharding at world size one: equal answers, one optimiser step for everything, learning rates by group."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import ConfigError
from contract.machine_memory import total_memory
from contract.schema import DenseSpec, IdSpec
from models import sharding, table_planner
from models.losses import RankingLoss
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sharding import LearningRates, Sharded, process_group, shard
from models.table_planner import RankMemory, TableOptions, TableShape, plan_tables, rank_memory, table_places
from tests.models.small import inputs, small_config, small_schema

SCHEMA = small_schema()
CPU = torch.device("cpu")
GIB = 2**30
PLENTY = RankMemory(128 * GIB)
RATES = LearningRates(network=0.01, gates=0.02, embeddings=0.1, weight_decay=0.01)


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with process_group(CPU):
        yield


def sharded_ranker(rates: LearningRates = RATES) -> Sharded:
    torch.manual_seed(0)
    return shard(Ranker(SCHEMA, small_config(dropout=0.0), torch.device("meta")), CPU, rates)


def step(sharded: Sharded) -> float:
    given = TensorInputs.from_numpy(inputs(sharded.ranker.schema, 64, 64))
    labels = torch.stack([torch.arange(64) % 2, 3 + torch.arange(64) % 3], dim=1).float()
    sharded.optimizer.zero_grad()
    loss = RankingLoss(sharded.ranker.schema.tasks)(sharded.model(given), labels, torch.ones(64, 2))
    loss.total.backward()
    sharded.optimizer.step()
    return float(loss.total.detach())


def weights(sharded: Sharded) -> dict[str, torch.Tensor]:
    plain = Ranker(sharded.ranker.schema, sharded.ranker.config).state_dict()
    state = sharded.model.state_dict()
    tables = {n: torch.empty_like(plain[n]) for n in state if n.startswith("embeddings.")}
    for name, table in tables.items():
        state[name].gather(0, table)
    return {n: (tables[n] if n in tables else tensor.clone()) for n, tensor in state.items()}


def test_a_sharded_ranker_answers_as_the_plain_one_with_its_weights() -> None:
    sharded = sharded_ranker()
    step(sharded)
    plain = Ranker(SCHEMA, sharded.ranker.config)
    plain.load_state_dict(weights(sharded))
    given = TensorInputs.from_numpy(inputs(SCHEMA, 32, 32, seed=5))
    with torch.no_grad():
        expected = sharded.model.eval()(given).logits_BT
        torch.testing.assert_close(plain.eval()(given).logits_BT, expected)


def test_steps_lower_the_loss_and_move_every_table_and_layer() -> None:
    sharded = sharded_ranker()
    before = weights(sharded)
    first = step(sharded)
    for _ in range(20):
        last = step(sharded)
    after = weights(sharded)
    assert last < 0.8 * first
    unmoved = [n for n, w in before.items() if w.is_floating_point() and torch.equal(w, after[n])]
    assert not unmoved


def test_a_factor_of_zero_stops_all_learning() -> None:
    sharded = sharded_ranker()
    step(sharded)
    before = weights(sharded)
    sharded.scale_learning_rates(0.0)
    step(sharded)
    after = weights(sharded)
    learned = [name for name, _ in Ranker(SCHEMA, small_config()).named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in learned)


def test_weight_decay_spares_gates_and_vectors() -> None:
    groups = sharded_ranker().optimizer.param_groups
    assert [(group["lr"], group.get("weight_decay")) for group in groups] == [
        (pytest.approx(0.1), None),
        (0.02, 0.0),
        (0.01, 0.01),
        (0.01, 0.0),
    ]


def test_clipping_bounds_the_norm_of_the_networks_gradients() -> None:
    sharded = sharded_ranker()
    given = TensorInputs.from_numpy(inputs(SCHEMA, 64, 64))
    (sharded.model(given).logits_BT * 1000).square().sum().backward()
    sharded.clip_gradients(0.5)
    grads = [p.grad for p in sharded.ranker.network.parameters() if p.grad is not None]
    assert float(torch.cat([g.flatten() for g in grads]).norm()) == pytest.approx(0.5, rel=1e-3)


def test_a_ranker_without_tables_trains_too() -> None:
    schema = small_schema(features=(DenseSpec(name="x", side="item", encoding="standardise"),))
    sharded = shard(Ranker(schema, small_config(), torch.device("meta")), CPU, RATES)
    first = step(sharded)
    for _ in range(20):
        last = step(sharded)
    assert last < first


def plan(ranker: Ranker, world: int, device: str, memory: RankMemory, **asked: str) -> Any:
    assert ranker.embeddings is not None
    shapes = {t.name: TableShape(t.num_embeddings, t.embedding_dim) for t in ranker.embeddings.embedding_bag_configs()}
    return plan_tables(ranker, shapes, world, device, memory, {n: TableOptions(sharding=s) for n, s in asked.items()})


def test_one_rank_has_each_table_whole() -> None:
    alone = plan(Ranker(small_schema(), small_config(), torch.device("meta")), 1, "cpu", PLENTY)
    assert {table.sharding_type for each in alone.plan.values() for table in each.values()} == {"table_wise"}


def large_table() -> Ranker:
    """A table of 12 GiB, of which nothing is allocated."""
    user = IdSpec(name="user", kind="id", side="user", rows=200_000_000)
    return Ranker(small_schema(features=(user,)), small_config(embedding_dim=16), torch.device("meta"))


@pytest.mark.parametrize(("gigabytes", "kernel"), [(80, "fused"), (8, "fused_uvm_caching")])
def test_a_table_larger_than_the_card_lies_in_the_hosts_memory_with_a_cache(gigabytes: int, kernel: str) -> None:
    found = plan(large_table(), 1, "cuda", RankMemory(PLENTY.host, gigabytes * GIB))
    (tables,) = found.plan.values()
    assert (tables["user"].sharding_type, tables["user"].compute_kernel) == ("table_wise", kernel)
    (place,) = table_places(found, {})
    assert ("in the host's memory with a cache on the card" in str(place)) == (kernel == "fused_uvm_caching")


def test_tables_that_the_machine_cannot_hold_are_refused_with_the_sizes() -> None:
    plan(large_table(), 1, "cpu", RankMemory(16 * GIB))
    message = (
        r"tables \(11.9 GiB, of which user has 11.9 GiB\).* one rank, which has 8.0 GiB of the host's memory: lower"
    )
    with pytest.raises(ConfigError, match=message):
        plan(large_table(), 1, "cpu", RankMemory(8 * GIB))


def test_two_ranks_hold_what_one_cannot_and_a_table_kept_whole_is_told_of() -> None:
    plan(large_table(), 2, "cpu", RankMemory(8 * GIB))
    with pytest.raises(ConfigError, match=r"2 ranks, each of which has 8.0 GiB.* leave out train.tables.user.sharding"):
        plan(large_table(), 2, "cpu", RankMemory(8 * GIB), user="table_wise")


def test_a_rank_counts_on_its_share_of_what_the_machine_or_its_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_memory(CPU) == RankMemory(total_memory())
    monkeypatch.setattr(table_planner, "total_memory", lambda: 6 * GIB)
    assert rank_memory(CPU) == RankMemory(6 * GIB)


def planned(rows: int, world: int, sharding: str | None = None, **changes: object) -> str:
    user = IdSpec(name="user", kind="id", side="user", rows=rows)
    ranker = Ranker(small_schema(features=(user, *SCHEMA.features[2:4])), small_config(**changes), torch.device("meta"))
    found = plan(ranker, world, "cpu", PLENTY, **({} if sharding is None else {"user": sharding}))
    return str(next(iter(found.plan.values()))["user"].sharding_type)


def test_tiny_tables_lie_whole_on_one_rank_and_large_ones_are_shared_out() -> None:
    assert planned(2_000, 2) == "table_wise"
    assert planned(2_000_000, 2) == "row_wise"
    assert planned(2_000, 2, "row_wise") == "row_wise"


def test_rows_that_leave_a_rank_without_any_are_not_shared_out_beside_other_widths() -> None:
    assert planned(4, 3, "row_wise") == "row_wise"
    with pytest.raises(ConfigError, match="4 rows leave one of 3 ranks without any"):
        planned(4, 3, "row_wise", table_dims={"user": 4})


def test_all_of_a_model_goes_to_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tables, which torchrec puts there; by a device of every machine: on the CPU nothing is left behind."""
    monkeypatch.setattr(
        sharding, "plan_on_machine", lambda *_: SimpleNamespace(plan={}, get_plan_for_module=lambda _: None)
    )
    meta = torch.device("meta")
    numbers = small_schema(features=tuple(each for each in SCHEMA.features if isinstance(each, DenseSpec)))
    sharded = shard(Ranker(numbers, small_config()), meta, RATES)
    parts = {**dict(sharded.ranker.named_parameters()), **dict(sharded.ranker.named_buffers())}
    assert {name for name, part in parts.items() if part.device.type != "meta"} == set()
