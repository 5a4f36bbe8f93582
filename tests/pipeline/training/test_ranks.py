"""Several ranks: a checkpoint of two answers alike on one, two and three ranks, and on a plain model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from features.batches import BatchReader
from models.ranker_tensors import TensorInputs
from pipeline.training.checkpoint import latest, load_ranker, read_meta
from pipeline.training.training_log import flat
from tests.models.small import small_schema
from tests.pipeline.rank_program import score, train_run
from tests.pipeline.tiny_features import write_features

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = small_schema()


def on_ranks(count: int, *arguments: object, restarts: int = 0) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command.append(f"--max-restarts={restarts}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [*command, "-m", "tests.pipeline.rank_program", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[:8000]
    return run.stdout


@pytest.mark.slow
def test_a_run_stopped_on_two_ranks_goes_on_on_one_and_on_three_with_every_row_once(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA)
    two, three, whole = tmp_path / "two", tmp_path / "three", tmp_path / "whole"
    two.mkdir()
    on_ranks(2, "stop", features, two)
    directory = latest(two)
    assert directory is not None
    assert (read_meta(directory).progress.epoch, read_meta(directory).progress.row) == (1, 250)
    shutil.copytree(two, three)
    train_run(features, two)
    train_run(features, whole)
    on_ranks(3, "train", features, three)
    histories = [json.loads((run / "history.json").read_text())["epochs"] for run in (whole, two, three)]
    assert [[epoch["steps"] for epoch in history] for history in histories] == [[9, 9], [9, 8], [9, 8]]
    # The tests' runs are of float64, whose rounding Adam's first steps cannot amplify to anything that counts.
    figures = [{f"{e}/{name}": value for e in (0, 1) for name, value in flat(history[e]).items()
                if name.startswith("valid")} for history in histories]  # fmt: skip
    assert figures[0].keys() == {"0/valid/like/auc", "0/valid/rating/rmse", "1/valid/like/auc", "1/valid/rating/rmse"}
    assert figures[1] == pytest.approx(figures[0], abs=1e-6, rel=0)
    assert figures[2] == pytest.approx(figures[0], abs=1e-6, rel=0)
    losses = [history[0]["train"]["total"]["loss"] for history in histories]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


@pytest.mark.slow
def test_after_a_killed_worker_torchrun_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    on_ranks(2, "lose", features, run_dir, restarts=3)
    epochs = json.loads((run_dir / "history.json").read_text())["epochs"]
    assert [epoch["step"] for epoch in epochs] == [9, 18]
    # The first epoch's record is of the second attempt, which began where a checkpoint was.
    assert epochs[0]["steps"] < 9


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_answers_alike_on_any_number(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    on_ranks(2, "train", features, run_dir)
    epochs = json.loads((run_dir / "history.json").read_text())["epochs"]
    assert [epoch["steps"] for epoch in epochs] == [9, 9]

    ranker = load_ranker(run_dir, SCHEMA)
    batch = next(BatchReader(features / "valid", SCHEMA, 200).epoch())
    with torch.no_grad():
        plain = ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT.numpy()
    on_ranks(3, "score", features, run_dir, tmp_path / "three.npz")
    score(features, run_dir, tmp_path / "one.npz")
    three, one = np.load(tmp_path / "three.npz"), np.load(tmp_path / "one.npz")
    np.testing.assert_allclose(three["logits"], plain, atol=1e-5)
    np.testing.assert_allclose(one["logits"], plain, atol=1e-5)
    assert float(one["moments"]) > 0
    assert float(one["moments"]) == pytest.approx(float(three["moments"]))
