"""STEM: embeddings and experts of each task's own, which other tasks' gates weigh without teaching them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.errors import ConfigError
from models.export import export
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import graph_path, inputs, lively_ranker, small_config, small_schema

STEM: dict[str, Any] = {
    "architecture": {"name": "stem"},
    "embedding_dim": 12,
    "gate": {"name": "softmax"},
    "experts": 2,
    "expert_widths": (5,),
    "tower_widths": (),
}


def stem(**changes: Any) -> Ranker:
    return lively_ranker(small_schema(), small_config(**STEM | changes))


def test_streams_are_the_tasks_shares_of_every_embedding_the_shared_share_and_all_numbers() -> None:
    network = stem().network
    users = network.streams_SW[:, :4]
    assert users.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    counts = torch.bincount(network.streams_SW.flatten(), minlength=network.inputs)
    # Six embeddings of twelve columns are read once; age, plays and the price's components by all three streams.
    assert sorted(counts.unique().tolist()) == [1, 3]
    assert int((counts == 1).sum()) == 72


def test_the_answers_equal_the_architecture_written_out() -> None:
    ranker = stem(norm="none", dropout=0.0, routing_norm="none")
    network = ranker.network
    own = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
    x = torch.randn(9, network.inputs)
    norm = network.input_norm(x).detach().double().numpy()
    streams = [norm[:, columns] for columns in network.streams_SW.tolist()]
    answers = []
    for bank, reads in enumerate((0, 1, 2)):
        layer = f"levels.0.banks.{bank}.experts.blocks.0.linear"
        hidden = np.maximum(streams[reads] @ own[f"{layer}.weight"].T + own[f"{layer}.bias"], 0)
        answers += np.split(hidden, hidden.shape[1] // 5, axis=1)
    for task in range(2):
        gate = f"levels.0.gates.{task}.projection"
        read = np.concatenate([streams[task], streams[2]], axis=1)
        logits = read @ own[f"{gate}.weight"].T + own[f"{gate}.bias"]
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        mixture = sum(weights[:, [e]] * answers[e] for e in range(4))
        head = f"towers.towers.{task}.head"
        expected = mixture @ own[f"{head}.weight"].T + own[f"{head}.bias"]
        np.testing.assert_allclose(network(x).outputs_BT[:, [task]].detach().numpy(), expected, atol=1e-5)


def test_a_task_teaches_its_own_and_the_shared_embeddings_alone() -> None:
    ranker = stem().train()
    given = TensorInputs.from_numpy(inputs(ranker.schema, 32, 32))
    ranker(given).logits_BT[:, 0].sum().backward()
    gradient = ranker.table_weights()["user"].grad
    assert gradient is not None
    used = gradient.abs().sum(dim=0) > 0
    assert used.tolist() == [True] * 4 + [False] * 4 + [True] * 4
    banks = ranker.network.typed_levels[0].typed_banks
    taught = [any(p.grad is not None and bool(p.grad.any()) for p in bank.parameters()) for bank in banks]
    assert taught == [True, False, True]


def test_other_tasks_experts_still_count_in_the_answer() -> None:
    ranker = stem()
    given = TensorInputs.from_numpy(inputs(ranker.schema, 32, 32))
    other = ranker.network.typed_levels[0].typed_banks[1].experts.typed_blocks[0].linear
    assert isinstance(other, torch.nn.Linear)
    with torch.no_grad():
        before = ranker(given).logits_BT[:, 0].clone()
        other.bias.add_(1.0)
        assert not torch.equal(before, ranker(given).logits_BT[:, 0])


@pytest.mark.parametrize("gate", [{"name": "top_k", "k": 2}])
def test_the_graph_answers_alike(gate: dict[str, Any], tmp_path: Path) -> None:
    ranker = stem(gate=gate, input_norm="none")
    report = export(ranker, ranker.schema, inputs(ranker.schema, 1, 300), graph_path(tmp_path))
    assert report.worst_difference <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": 8}, "let model.embedding_dim .* be multiples of 12"),
        ({"bottom": (8,)}, "leave model.bottom and model.interaction out"),
        ({"gate_scope": "shared"}, "gate_scope is shared, but architecture stem"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stem(**changes)
