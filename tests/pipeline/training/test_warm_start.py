"""Training that goes on from an earlier run: rows by value, columns by feature, what is reset, which rows are new."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.errors import DataError, IntegrityError
from contract.schema import DenseSpec, IdSpec, Schema
from features.batches import BatchReader
from features.encode.vocabulary import Vocabularies
from pipeline.training.checkpoint import best, load_ranker, stored
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.warm_start import Start, row_map
from tests.encoded_rows import write_dataset
from tests.models.small import FEATURES, small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
MODEL = small_config(gate={"name": "top_k", "k": 2})
# So slow that what a run starts with is what it ends with.
STILL = {"learning_rate": 1e-12, "embedding_learning_rate": 1e-12, "weight_decay": 0.0}


def config(**changes: object) -> TrainConfig:
    rates = {"learning_rate": 0.01, "embedding_learning_rate": 0.1}
    return TrainConfig.model_validate({"epochs": 2, "batch_size": 256} | rates | changes)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


@pytest.fixture(scope="module")
def earlier(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("earlier")
    train(features, MODEL, config(), run_dir, lambda _: None)
    return run_dir


def go_on(features: Path, earlier: Path, run_dir: Path, **warm: object) -> tuple[list[str], dict[str, torch.Tensor]]:
    said: list[str] = []
    settings = config(**STILL, warm=warm)
    train(features, MODEL, settings, run_dir, said.append, start=Start(earlier))
    return said, load_ranker(run_dir, Schema.load(features)).state_dict()


def weights_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What no step has moved: all but the norms' statistics and the gates' counts."""
    return {n: t for n, t in state.items() if "running" not in n and "num_batches" not in n and "step" not in n}


def test_all_weights_come_over(features: Path, earlier: Path, tmp_path: Path) -> None:
    said, state = go_on(features, earlier, tmp_path)
    rows = sum(SCHEMA.tables().values())
    assert said[0] == f"starts from {earlier.name}: {rows} rows of tables kept, 0 fresh; 2,048 rows to train on"
    for name, tensor in weights_of(load_ranker(earlier, SCHEMA).state_dict()).items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-8, msg=name)


def test_where_the_best_checkpoint_is_damaged_the_latest_sound_one_is_taken(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, config(epochs=3), tmp_path / "earlier", lambda _: None)
    chosen = best(tmp_path / "earlier")
    assert chosen is not None
    next(chosen.glob("*.distcp")).write_bytes(b"damaged")
    said, _ = go_on(features, tmp_path / "earlier", tmp_path / "later")
    assert said[0].startswith("starts from earlier: ")
    for directory in stored(tmp_path / "earlier"):
        next(directory.glob("*.distcp")).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="is not what was written there"):
        go_on(features, tmp_path / "earlier", tmp_path / "again")


def test_the_optimisers_state_comes_over_by_choice(features: Path, earlier: Path, tmp_path: Path) -> None:
    losses = {}
    for kept in (True, False):
        settings = config(warm={"optimizer": kept})
        result = train(features, MODEL, settings, tmp_path / str(kept), lambda _: None, start=Start(earlier))
        losses[kept] = result["metrics"]["rating"]["rmse"]
    assert losses[True] != losses[False]


def test_gates_and_towers_can_start_fresh(features: Path, earlier: Path, tmp_path: Path) -> None:
    said, state = go_on(features, earlier, tmp_path, reset=["towers"])
    assert "; fresh: towers" in said[0]
    before = load_ranker(earlier, SCHEMA).state_dict()
    for name, tensor in weights_of(before).items():
        if name.endswith("weight") and "norm" not in name:
            same = torch.allclose(state[name], tensor, atol=1e-8)
            assert same == (not name.startswith("network.towers.")), name


def test_tables_can_start_fresh(features: Path, earlier: Path, tmp_path: Path) -> None:
    said, state = go_on(features, earlier, tmp_path, reset=["tables"])
    assert "0 rows of tables kept" in said[0]
    assert "; fresh: tables" in said[0]
    before = load_ranker(earlier, SCHEMA).state_dict()
    tables = [name for name in before if name.startswith("embeddings.embedding_bags.")]
    assert not any(torch.allclose(state[name], before[name]) for name in tables)
    head = "network.towers.towers.0.head.weight"
    torch.testing.assert_close(state[head], before[head], rtol=0, atol=1e-8)


def test_features_that_come_and_go_are_mapped_by_name(earlier: Path, tmp_path: Path) -> None:
    added = DenseSpec(name="height", side="user", encoding="standardise")
    changed = small_schema(features=(added, *(spec for spec in FEATURES if spec.name != "tab")))
    features = tmp_path / "features"
    write_features(features, changed)
    said, state = go_on(features, earlier, tmp_path / "run")
    assert "starts from" in said[0]
    before = load_ranker(earlier, SCHEMA).state_dict()
    for spec in FEATURES:
        if isinstance(spec, IdSpec) and spec.name != "tab":
            name = f"embeddings.embedding_bags.{spec.table_name}.weight"
            torch.testing.assert_close(state[name], before[name], rtol=0, atol=1e-8)
    first = "network.levels.0.banks.0.experts.blocks.0.linear.weight"
    # Every column of a feature that stayed is among the new columns.
    new, old = state[first].T, before[first].T
    found = [int(torch.isclose(new, column, atol=1e-8).all(1).any()) for column in old]
    assert sum(found) == len(old) - 8


@pytest.mark.parametrize("swapped", [True, False], ids=["another feature as wide", "one feature less"])
def test_layers_as_wide_as_the_matrix_are_not_taken_for_its_columns(tmp_path: Path, *, swapped: bool) -> None:
    # 55 columns before, and 55 or 47 now; towers have as many hidden units as there are columns now.
    rest = tuple(spec for spec in FEATURES if spec.name != "tab")
    now = small_schema(features=(IdSpec(name="place", kind="id", side="context", rows=6), *rest) if swapped else rest)
    model = small_config(gate={"name": "top_k", "k": 2}, tower_widths=(55 if swapped else 47,))
    before, features = write_features(tmp_path / "before", SCHEMA), write_features(tmp_path / "now", now)
    train(before, model, config(epochs=1), tmp_path / "earlier", lambda _: None)
    train(features, model, config(**STILL), tmp_path / "later", lambda _: None, start=Start(tmp_path / "earlier"))
    state = load_ranker(tmp_path / "later", now).state_dict()
    for name, tensor in weights_of(load_ranker(tmp_path / "earlier", SCHEMA).state_dict()).items():
        if name.startswith("network.towers."):
            torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-8, msg=name)


def test_a_table_with_another_optimiser_keeps_its_rows(features: Path, earlier: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = config(**STILL, tables={"user": {"optimizer": "adagrad"}})
    train(features, MODEL, settings, tmp_path, said.append, start=Start(earlier))
    assert any("0 fresh; fresh: sums of squares of table user; " in line for line in said)
    name = "embeddings.embedding_bags.user.weight"
    before, after = load_ranker(earlier, SCHEMA).state_dict()[name], load_ranker(tmp_path, SCHEMA).state_dict()[name]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-8)


def test_rows_of_a_grown_vocabulary_go_to_the_rows_of_their_values() -> None:
    before = Vocabularies({"user": pa.array([None, "ann", "bob", "eve"])})
    now = Vocabularies({"user": pa.array([None, "eve", "zoe", "ann"])})
    assert row_map(before, now, "user").tolist() == [0, 1, 4, -1, 2]


def test_another_model_is_refused_with_what_differs(features: Path, earlier: Path, tmp_path: Path) -> None:
    other = small_config(gate={"name": "top_k", "k": 2}, experts=8)
    with pytest.raises(DataError, match=r"trained with another model \(experts differ\)"):
        train(features, other, config(), tmp_path, lambda _: None, start=Start(earlier))


def test_only_later_rows_are_read_and_a_share_of_others(features: Path, tmp_path: Path) -> None:
    table = pq.read_table(next((features / "train").glob("*.parquet")))
    timed = table.append_column("__time", pa.array(np.arange(len(table)) // 130))
    write_dataset(tmp_path / "train", [timed], SCHEMA, group_rows=100)
    path = tmp_path / "train"
    assert BatchReader(path, SCHEMA, 50, seed=1, later_than=11).total_rows == 2048 - 1560
    assert BatchReader(path, SCHEMA, 50, seed=1, later_than=11, replay=0.5).total_rows == pytest.approx(976, abs=60)
    users = [user for b in BatchReader(path, SCHEMA, 50, seed=1, later_than=11).epoch() for user in b.user.tolist()]
    assert sorted(users) == list(range(1560, 2048))
    assert BatchReader(path, SCHEMA, 50, later_than=11).latest_time == 15


def test_weights_can_be_held_near_the_earlier_ones(features: Path, earlier: Path, tmp_path: Path) -> None:
    before = load_ranker(earlier, SCHEMA).state_dict()
    moved = {}
    for near in (0.0, 100.0):
        settings = config(warm={"keep_near": near})
        train(features, MODEL, settings, tmp_path / str(near), lambda _: None, start=Start(earlier))
        state = load_ranker(tmp_path / str(near), SCHEMA).state_dict()
        name = "network.towers.towers.0.head.weight"
        moved[near] = float((state[name] - before[name]).norm())
    assert moved[100.0] < 0.9 * moved[0.0]
