"""Checkpoints while training goes on: how many stay, damaged ones, a full disk, what killed processes leave."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.remote_device import _remote_device

from contract.errors import TrainingError
from contract.files import TEMPORARY_PREFIX
from models.ranker import Ranker
from models.sharding import LearningRates, process_group, shard
from models.weighting import FixedConfig
from pipeline.training.checkpoint import load_ranker, read_meta, resume, stored
from pipeline.training.checkpoint_writer import CheckpointWriter, on_host
from pipeline.training.run_progress import RunProgress
from pipeline.training.train import train
from pipeline.training.train_config import CheckpointConfig, TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
MODEL = small_config(gate={"name": "top_k", "k": 2})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


@contextmanager
def a_writer(run_dir: Path, **settings: object) -> Iterator[CheckpointWriter]:
    with process_group(CPU):
        torch.manual_seed(0)
        rates = LearningRates(network=0.01, gates=0.01, embeddings=0.1)
        sharded = shard(Ranker(SCHEMA, MODEL, torch.device("meta")), CPU, rates)
        weighting = FixedConfig().build(SCHEMA.tasks, torch.ones(2))
        with CheckpointWriter(run_dir, sharded, weighting, CheckpointConfig.model_validate(settings)) as writer:
            yield writer


def steps_of(run_dir: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in stored(run_dir)]


def train_once(features: Path, run_dir: Path, said: list[str], **checkpoint: object) -> None:
    config = TrainConfig.model_validate({"epochs": 2, "batch_size": 256, "checkpoint": checkpoint})
    train(features, MODEL, config, run_dir, said.append)


def test_training_saves_in_the_middle_of_an_epoch_and_keeps_the_last(features: Path, tmp_path: Path) -> None:
    train_once(features, tmp_path, [], every_steps=3, keep_last=3)
    assert steps_of(tmp_path)[0] == 16
    assert len(steps_of(tmp_path)) in {3, 4}
    assert any(step not in {8, 16} for step in steps_of(tmp_path))


def test_a_save_is_due_by_steps_or_by_the_clock(tmp_path: Path) -> None:
    with a_writer(tmp_path, every_steps=2, every_minutes=None) as writer:
        assert [writer.is_due(RunProgress(step=step)) for step in (5, 6, 7)] == [False, False, True]
        writer.save(RunProgress(step=7), wait=True)
        assert [writer.is_due(RunProgress(step=step)) for step in (8, 9)] == [False, True]
    with a_writer(tmp_path, every_minutes=1e-9) as writer:
        assert writer.is_due(RunProgress(step=1))


def test_what_is_saved_is_the_state_of_that_moment(tmp_path: Path) -> None:
    with a_writer(tmp_path) as writer:
        before = {n: p.detach().clone() for n, p in writer.sharded.ranker.network.named_parameters()}
        writer.save(RunProgress(step=1))
        with torch.no_grad():
            for parameter in writer.sharded.ranker.network.parameters():
                parameter.add_(1.0)
        writer.wait()
    kept = dict(load_ranker(tmp_path, SCHEMA).network.named_parameters())
    assert all(torch.equal(kept[name], value) for name, value in before.items())


def test_a_damaged_latest_falls_back_to_the_one_before_with_a_warning(features: Path, tmp_path: Path) -> None:
    train_once(features, tmp_path, [], every_steps=3)
    newest, older = stored(tmp_path)[:2]
    shard_file = next(newest.glob("*.distcp"))
    shard_file.write_bytes(shard_file.read_bytes()[:-1])
    said: list[str] = []
    with a_writer(tmp_path) as writer:
        progress = resume(tmp_path, writer.sharded, writer.weighting, said.append)
    assert progress.step == int(older.name.removeprefix("step-"))
    assert len(said) == 1
    assert said[0].startswith(f"passed over a damaged checkpoint: {shard_file.name} in {newest}")
    train_once(features, tmp_path, said, every_steps=3)
    assert steps_of(tmp_path)[0] == 16


def test_a_disk_without_room_is_said_in_words_and_earlier_checkpoints_stay(tmp_path: Path) -> None:
    with a_writer(tmp_path) as writer:
        writer.save(RunProgress(step=1), wait=True)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(TrainingError, match=r"step 2 could not be written .*: File too large .* MB were free"):
                writer.save(RunProgress(step=2), wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps_of(tmp_path) == [1]
    assert not list((tmp_path / "checkpoint").glob(".*"))


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    partial = tmp_path / "checkpoint" / ".step-7.partial"
    partial.mkdir(parents=True)
    (partial / "__0_0.distcp").write_bytes(b"half")
    history = tmp_path / f"{TEMPORARY_PREFIX}history.json.123.0"
    history.write_text("{")
    with a_writer(tmp_path):
        assert not partial.exists()
        assert not history.exists()


def test_a_step_that_is_written_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with a_writer(tmp_path) as writer:
        for epoch in (0, 1):
            writer.save(RunProgress(step=7, epoch=epoch), wait=True)
        assert [path.name for path in writer.folder.iterdir()] == ["step-7"]
        assert read_meta(writer.folder / "step-7").progress.epoch == 1


def test_one_that_cannot_take_the_place_of_the_first_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EIO, "no")
        return rename(self, target)

    with a_writer(tmp_path) as writer:
        writer.save(RunProgress(step=7), wait=True)
        monkeypatch.setattr(Path, "rename", refused)
        with pytest.raises(TrainingError, match="step 7 could not be written"):
            writer.save(RunProgress(step=7, epoch=1), wait=True)
        assert read_meta(writer.folder / "step-7").progress.epoch == 0


def test_a_checkpoint_that_stood_aside_when_the_process_was_killed_is_back(features: Path, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"epochs": 1, "batch_size": 256})
    train(features, MODEL, config, tmp_path, lambda _: None)
    (tmp_path / "checkpoint" / "step-8").rename(tmp_path / "checkpoint" / ".step-8.aside")
    said: list[str] = []
    train(features, MODEL, config, tmp_path, said.append)
    assert not said  # the run is finished
    assert steps_of(tmp_path) == [8]


def test_what_is_copied_off_a_card_says_that_it_lies_on_the_host(tmp_path: Path) -> None:
    """Torch refuses a shard that lies elsewhere than it says; a card's run could not save at all."""
    with a_writer(tmp_path) as writer:
        tables = [each for each in writer.sharded.model.state_dict().values() if isinstance(each, ShardedTensor)]
        metadata = tables[0].metadata()
        for shard_ in metadata.shards_metadata:
            shard_.placement = _remote_device("rank:0/cuda:0")
        copied = on_host(metadata)
    assert [str(shard_.placement) for shard_ in copied.shards_metadata] == ["rank:0/cpu"]
    assert [str(shard_.placement) for shard_ in metadata.shards_metadata] == ["rank:0/cuda:0"]
    assert copied.size == metadata.size
