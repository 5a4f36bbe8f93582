"""Importance, load balance, z-loss and entropy: their values, and equality over ranks with the global batch.

Shapes: B rows, D routing inputs, E experts.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from models.gates import Regularisers, TopKConfig
from models.gates.choice import Choice
from models.gates.regularisers import entropy, importance, load_balance, z_loss
from models.gates.top_k import TopKGate
from models.sharding import process_group

WIDTH, EXPERTS, RANKS = 6, 4, 2
ALL = Regularisers(importance=0.5, load_balance=0.3, z_loss=0.2, entropy=0.1)


def choice(weights_BE: list[list[float]], logits_BX: Tensor | None = None) -> Choice:
    weights = torch.tensor(weights_BE)
    return Choice(weights, weights > 0, {}, logits_BX=logits_BX)


def test_balanced_experts_have_no_importance_loss_and_a_load_balance_of_one() -> None:
    even = choice([[1.0, 0.0], [0.0, 1.0]])
    assert importance(even).item() == 0
    assert load_balance(even).item() == pytest.approx(1)
    one = choice([[1.0, 0.0], [1.0, 0.0]])
    assert importance(one).item() == pytest.approx(1)
    assert load_balance(one).item() == pytest.approx(2)


def test_one_rank_asks_nobody_for_the_means_of_the_global_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that a card captures is to hold no collective."""

    def refuse(tensor: Tensor) -> None:
        pytest.fail(f"{tuple(tensor.shape)} was sent to nobody")

    expected = importance(choice([[1.0, 0.0], [1.0, 0.0]]))
    monkeypatch.setattr(distributed, "all_reduce", refuse)
    with process_group(torch.device("cpu")):
        assert importance(choice([[1.0, 0.0], [1.0, 0.0]])).item() == expected.item()


def test_entropy_is_in_nats_and_zero_for_one_expert() -> None:
    assert entropy(choice([[0.5, 0.5], [1.0, 0.0]])).item() == pytest.approx(0.5 * math.log(2))


def test_the_entropy_of_a_selecting_gate_is_that_of_its_full_softmax() -> None:
    gate = TopKGate(TopKConfig(k=1, regularisers=Regularisers(entropy=1.0)), 4, WIDTH)
    assert gate.route(torch.zeros(3, 4)).penalties["entropy"].item() == pytest.approx(math.log(4))


def test_z_loss_is_the_squared_log_sum_exp_of_the_softmax_logits() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, -torch.inf]])
    expected = (torch.log(torch.tensor(2.0)) ** 2 + 9) / 2
    torch.testing.assert_close(z_loss(choice([[1.0, 0.0], [1.0, 0.0]], logits)), expected)
    assert z_loss(choice([[1.0, 0.0]])).item() == 0


def test_regularisers_are_off_by_default_and_absent_in_evaluation() -> None:
    assert TopKGate(TopKConfig(), EXPERTS, WIDTH)(torch.randn(3, WIDTH)).penalties == {}
    gate = TopKGate(TopKConfig(regularisers=ALL), EXPERTS, WIDTH)
    assert set(gate(torch.randn(3, WIDTH)).penalties) == {"importance", "load_balance", "z_loss", "entropy"}
    assert gate.eval()(torch.randn(3, WIDTH)).penalties == {}


def test_null_experts_share_their_load_in_the_balance() -> None:
    """Two null experts that always take one choice together count as evenly used."""
    gate = TopKGate(TopKConfig(k=2, null_experts=2, regularisers=Regularisers(load_balance=1.0)), 2, WIDTH)
    fixed = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    swapped = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    for logits in (fixed, swapped):
        assert gate.route(logits).penalties["load_balance"].item() == pytest.approx(1.0)


def penalties_and_gradients(rows_BD: Tensor) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    gate = TopKGate(TopKConfig(k=2, regularisers=ALL), EXPERTS, WIDTH)
    total = torch.stack(list(gate(rows_BD).penalties.values())).sum()
    return total.detach(), list(torch.autograd.grad(total, list(gate.parameters())))


def batch() -> Tensor:
    return torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    total, found = penalties_and_gradients(batch().chunk(RANKS)[rank])
    # What data-parallel training makes of the ranks' losses and gradients.
    for value in (total, *found):
        distributed.all_reduce(value)
        value.div_(RANKS)
    for name, value in zip(("total", *map(str, range(len(found)))), (total, *found), strict=True):
        np.save(f"{folder}/{name}-{rank}.npy", value.numpy())
    distributed.destroy_process_group()


def test_two_ranks_regularise_the_global_batch_as_one_process_does(tmp_path: Path) -> None:
    spawn(run_rank, args=(str(tmp_path),), nprocs=RANKS)
    total, found = penalties_and_gradients(batch())
    for rank in range(RANKS):
        for name, expected in zip(("total", *map(str, range(len(found)))), (total, *found), strict=True):
            actual = np.load(tmp_path / f"{name}-{rank}.npy", allow_pickle=False)
            np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-6)
