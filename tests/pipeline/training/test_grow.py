"""Mixtures that grow out of smaller models: what every expert starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from contract.errors import DataError
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.warm_start import Start
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
STILL = {"learning_rate": 1e-12, "embedding_learning_rate": 1e-12, "weight_decay": 0.0}
BANK = "network.levels.0.banks.0.experts.blocks."


def config(**changes: Any) -> TrainConfig:
    rates = {"learning_rate": 0.01, "embedding_learning_rate": 0.1}
    return TrainConfig.model_validate({"epochs": 1, "batch_size": 256} | rates | changes)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA, train_rows=1024)


def trained(features: Path, run_dir: Path, **model: Any) -> dict[str, torch.Tensor]:
    train(features, small_config(**model), config(), run_dir, lambda _: None)
    return load_ranker(run_dir, SCHEMA).state_dict()


def grown(features: Path, earlier: Path, run_dir: Path, warm: dict[str, Any], **model: Any) -> dict[str, torch.Tensor]:
    settings = config(**STILL, warm=warm)
    train(features, small_config(**model), settings, run_dir, lambda _: None, start=Start(earlier))
    return load_ranker(run_dir, SCHEMA).state_dict()


def first_layer(state: dict[str, torch.Tensor], experts: int) -> torch.Tensor:
    return state[f"{BANK}0.linear.weight"].unflatten(0, (experts, 16))


def test_experts_of_a_shared_bottom_are_its_copies(features: Path, tmp_path: Path) -> None:
    old = trained(features, tmp_path / "old", architecture={"name": "shared_bottom"}, bottom=[12])
    new = grown(features, tmp_path / "old", tmp_path / "new", {"grow": "copy"}, bottom=[12])
    for expert in range(4):
        torch.testing.assert_close(first_layer(new, 4)[expert], old["network.bottom.1.linear.weight"])
        torch.testing.assert_close(new[f"{BANK}1.linear.weight_EHD"][expert], old["network.bottom.2.linear.weight"])
        torch.testing.assert_close(new[f"{BANK}1.linear.bias_EH"][expert], old["network.bottom.2.linear.bias"])
        norm = new[f"{BANK}1.norm.weight"].unflatten(0, (4, 8))[expert]
        torch.testing.assert_close(norm, old["network.bottom.2.norm.weight"])
    for name in ("network.bottom.0.linear.weight", "network.towers.towers.0.head.weight"):
        torch.testing.assert_close(new[name], old[name])


def test_a_share_of_each_copys_hidden_units_is_drawn_anew(features: Path, tmp_path: Path) -> None:
    old = trained(features, tmp_path / "old", architecture={"name": "shared_bottom"})
    new = grown(features, tmp_path / "old", tmp_path / "new", {"grow": "drop", "grow_share": 0.25})
    same = (first_layer(new, 4) - old["network.bottom.0.linear.weight"]).abs().amax(2) < 1e-6
    assert same.sum(1).tolist() == [16, 12, 12, 12]
    reads = (new[f"{BANK}1.linear.weight_EHD"] - old["network.bottom.1.linear.weight"]).abs().amax(1) < 1e-6
    assert torch.equal(same, reads)


def test_one_expert_is_trained_first_and_its_copies_are_masked(features: Path, tmp_path: Path) -> None:
    old = trained(features, tmp_path / "old", experts=1, gate={"name": "softmax"})
    gate = {"name": "dense_to_sparse", "switch_step": 100}
    new = grown(features, tmp_path / "old", tmp_path / "new", {"grow": "mask", "grow_share": 0.3}, gate=gate)
    weights = first_layer(new, 4)
    torch.testing.assert_close(weights[0], first_layer(old, 1)[0])
    for expert in range(1, 4):
        gone = weights[expert].abs() < 1e-9
        assert float(gone.float().mean()) == pytest.approx(0.3, abs=0.05)
        torch.testing.assert_close(weights[expert][~gone], first_layer(old, 1)[0][~gone])


def test_more_experts_begin_as_those_there_were(features: Path, tmp_path: Path) -> None:
    old = trained(features, tmp_path / "old", experts=2)
    new = grown(features, tmp_path / "old", tmp_path / "new", {"grow": "copy"})
    for expert in range(4):
        torch.testing.assert_close(first_layer(new, 4)[expert], first_layer(old, 2)[expert % 2])


def test_what_starts_fresh_is_told_by_part(features: Path, tmp_path: Path) -> None:
    trained(features, tmp_path / "old", experts=2)
    said: list[str] = []
    start = Start(tmp_path / "old")
    train(features, small_config(), config(warm={"grow": "copy"}), tmp_path / "new", said.append, start=start)
    assert "; fresh: gates, optimiser of experts, optimiser of gates; 1,024 rows" in said[0]


def test_what_cannot_grow_is_refused_with_what_can(features: Path, tmp_path: Path) -> None:
    trained(features, tmp_path / "old", experts=2)
    with pytest.raises(DataError, match=r"mmoe with 2 experts cannot grow into mmoe with 4 \(tower_widths differ\)"):
        grown(features, tmp_path / "old", tmp_path / "new", {"grow": "copy"}, tower_widths=(4,))
    trained(features, tmp_path / "several", experts=2, members=2)
    with pytest.raises(DataError, match="without private_experts and with one member"):
        grown(features, tmp_path / "several", tmp_path / "new", {"grow": "copy"}, members=2)
