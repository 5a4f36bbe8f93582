"""Balanced hash gates: training deals the ids out by how often they occur, and loading keeps the dealing."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.gates.hash import HashGate
from models.ranker import Ranker
from pipeline.training.balanced_hash import count_ids, deal_ids
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
MODEL = small_config(gate={"name": "hash", "feature": "item", "assignment": "balanced"}, experts=3)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


def gates(ranker: Ranker) -> list[HashGate]:
    return [gate for gate in ranker.network.typed_gates if isinstance(gate, HashGate)]


def test_ids_are_counted_over_all_row_groups_and_those_beyond_the_table_are_left_out(features: Path) -> None:
    items = pq.read_table(features / "train")["item"].to_numpy()
    found = count_ids(features / "train", "item", 20)
    assert found.tolist() == np.bincount(items, minlength=50)[:20].tolist()


def test_every_expert_of_a_trained_gate_has_as_many_training_rows(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, TrainConfig(epochs=1, batch_size=512), tmp_path, lambda _: None)
    loaded = load_ranker(tmp_path, SCHEMA)
    items = torch.from_numpy(pq.read_table(features / "train")["item"].to_numpy()).long()
    for gate in gates(loaded):
        loads = torch.bincount(gate.expert_of(items), minlength=3)
        assert gate.table_R.shape == (50,)
        assert int(loads.max() - loads.min()) <= 10, loads.tolist()
    by_hash = gates(Ranker(SCHEMA, MODEL))[0]
    assert not torch.equal(by_hash.table_R, gates(loaded)[0].table_R)
    unseen = torch.arange(50, 500)
    assert torch.equal(gates(loaded)[0].expert_of(unseen), by_hash.expert_of(unseen))


def test_a_gate_over_fewer_ids_hashes_the_rest(features: Path) -> None:
    model = small_config(gate={"name": "hash", "feature": "item", "assignment": "balanced", "rows": 10}, experts=3)
    ranker = Ranker(SCHEMA, model)
    deal_ids(ranker, features / "train")
    assert gates(ranker)[0].table_R.shape == (10,)
    assert set(gates(ranker)[0].expert_of(torch.arange(10, 50)).tolist()) == {0, 1, 2}
