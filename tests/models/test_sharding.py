"""Sharding at world size one: equal answers, one optimiser step for everything, learning rates by group."""

from collections.abc import Iterator

import pytest
import torch

from contract.errors import ConfigError
from contract.schema import DenseSpec, IdSpec
from models.losses import RankingLoss
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sharding import LearningRates, Sharded, TableOptions, plan_tables, process_group, shard
from tests.models.small import inputs, small_config, small_schema

SCHEMA = small_schema()
CPU = torch.device("cpu")
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


def test_one_rank_has_each_table_whole() -> None:
    ranker = Ranker(small_schema(), small_config(), torch.device("meta"))
    alone = plan_tables(ranker, 1, "cpu", None, {})
    assert {table.sharding_type for plan in alone.plan.values() for table in plan.values()} == {"table_wise"}


@pytest.mark.parametrize(("gigabytes", "kernel"), [(80, "fused"), (8, "fused_uvm_caching")])
def test_a_table_larger_than_the_card_lies_in_the_hosts_memory_with_a_cache(gigabytes: int, kernel: str) -> None:
    user = IdSpec(name="user", kind="id", side="user", rows=200_000_000)
    ranker = Ranker(small_schema(features=(user,)), small_config(embedding_dim=16), torch.device("meta"))
    (plan,) = plan_tables(ranker, 1, "cuda", gigabytes * 2**30, {}).plan.values()
    assert (plan["user"].sharding_type, plan["user"].compute_kernel) == ("table_wise", kernel)


def planned(rows: int, world: int, sharding: str | None = None, **changes: object) -> str:
    user = IdSpec(name="user", kind="id", side="user", rows=rows)
    ranker = Ranker(small_schema(features=(user, *SCHEMA.features[2:4])), small_config(**changes), torch.device("meta"))
    plan = plan_tables(ranker, world, "cpu", None, {"user": TableOptions(sharding=sharding)})
    return str(next(iter(plan.plan.values()))["user"].sharding_type)


def test_tiny_tables_lie_whole_on_one_rank_and_large_ones_are_shared_out() -> None:
    assert planned(2_000, 2) == "table_wise"
    assert planned(2_000_000, 2) == "row_wise"
    assert planned(2_000, 2, "row_wise") == "row_wise"


def test_rows_that_leave_a_rank_without_any_are_not_shared_out_beside_other_widths() -> None:
    assert planned(4, 3, "row_wise") == "row_wise"
    with pytest.raises(ConfigError, match="4 rows leave one of 3 ranks without any"):
        planned(4, 3, "row_wise", table_dims={"user": 4})
