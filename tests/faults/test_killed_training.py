"""Training that is killed again and again, also inside a checkpoint, ends with the weights of one that was not."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from models.model_config import ModelConfig
from pipeline.training.checkpoint import latest, load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.faults.conftest import LONG, seeded
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

KILLS, EPOCHS = (100, 60) if LONG else (10, 6)
SCHEMA = small_schema()
MODEL: ModelConfig = small_config(gate={"name": "top_k", "k": 2}, dropout=0.1)
CONFIG = TrainConfig.model_validate(
    {"epochs": EPOCHS, "batch_size": 64, "checkpoint": {"every_steps": 1}, "early_stopping": None}
)


def work(features: Path, run_dir: Path) -> None:
    torch.set_num_threads(1)
    train(features, MODEL, CONFIG, run_dir, lambda _: None)


def steps_of(run_dir: Path) -> int:
    """Of its newest checkpoint."""
    found = latest(run_dir)
    return 0 if found is None else int(found.name.removeprefix("step-"))


def has_reached(run_dir: Path, steps: int) -> bool:
    return steps_of(run_dir) >= steps


def unfinished(run_dir: Path) -> list[Path]:
    """Checkpoints that are being written, or were when the training was killed."""
    return list((run_dir / "checkpoint").glob(".step-*.partial"))


def wait(child: BaseProcess, happened: Callable[[], object]) -> None:
    """Wait for a condition as long as the process lives."""
    while child.is_alive() and not happened():
        child.join(0.001)


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    work(features, whole)
    # Children are forked from a server that has imported everything, and no more.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.test_killed_training"])
    dice = seeded()
    kills = inside = 0
    while kills < KILLS:
        child = context.Process(target=work, args=(features, killed))
        child.start()
        # By steps, not by seconds: a fast machine would be done before it was killed so often.
        wait(child, partial(has_reached, killed, steps_of(killed) + dice.randint(1, 8)))
        if kills % 2:
            wait(child, partial(unfinished, killed))
        else:
            child.join(dice.uniform(0.0, 0.02))
        if not child.is_alive():
            break
        child.kill()
        child.join()
        kills += 1
        inside += bool(unfinished(killed))
    work(features, killed)
    assert kills == KILLS
    assert inside > 0
    assert not list((killed / "checkpoint").glob(".*"))
    expected, actual = load_ranker(whole, SCHEMA).state_dict(), load_ranker(killed, SCHEMA).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)
