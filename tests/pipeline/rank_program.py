"""One rank of test_ranks.py: ``train FEATURES RUN``, ``stop FEATURES RUN`` or ``score FEATURES RUN OUT``."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from contract.schema import Schema
from features.batches import BatchReader
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from models.sharding import LearningRates, best_device, process_group, shard
from models.weighting import FixedConfig
from pipeline.training.checkpoint import latest, resume
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config

MODEL = small_config(
    gate={"name": "top_k", "k": 2, "expert_dropout": 0.2},
    table_dims={"user": 12, "tab": 4},
    id_dropout=0.1,
    id_dropout_rows=20,
)
"""Tables of three widths, which ranks share out, and all that is left to chance: ids in lists, units and experts."""


EXACT = TrainConfig.model_validate(
    {
        "epochs": 2,
        "batch_size": 250,
        "learning_rate": 0.01,
        "embedding_learning_rate": 0.1,
        "precision": "fp64",
        "tables": {name: {"sharding": "row_wise"} for name in ("user", "item", "tags")},
    }
)


def train_run(features: Path, run_dir: Path) -> None:
    train(features, MODEL, EXACT, run_dir, print)


def stop_in_second_epoch(features: Path, run_dir: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("epoch 1"):
            signal.raise_signal(signal.SIGINT)

    with suppress(KeyboardInterrupt):
        train(features, MODEL, EXACT, run_dir, say)


def lose_a_worker(features: Path, run_dir: Path) -> None:
    """The second rank is killed once, after the first checkpoint in the middle of an epoch."""
    config = TrainConfig.model_validate({"epochs": 2, "batch_size": 250, "checkpoint": {"every_steps": 2}})

    def die() -> None:
        while latest(run_dir) is None:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        threading.Thread(target=die, daemon=True).start()
    train(features, MODEL, config, run_dir, print)


def score(features: Path, run_dir: Path, out: Path) -> None:
    schema = Schema.load(features)
    with process_group(best_device()):
        rates = LearningRates(network=1.0, gates=1.0, embeddings=1.0)
        sharded = shard(Ranker(schema, MODEL, torch.device("meta")), best_device(), rates)
        weighting = FixedConfig().build(schema.tasks, torch.ones(len(schema.tasks)))
        resume(run_dir, sharded, weighting)
        sharded.model.eval()
        batch = next(BatchReader(features / "valid", schema, 200).epoch())
        with torch.no_grad():
            logits = sharded.model(TensorInputs.from_numpy(batch.inputs)).logits_BT
        # What Adam keeps must have come along too, or the next steps would differ.
        moments = [state["exp_avg"] for state in sharded.optimizer.state_dict()["state"].values() if "exp_avg" in state]
        total = float(sum(moment.double().abs().sum() for moment in moments))
        if dist.get_rank() == 0:
            np.savez(out, logits=logits.numpy(), moments=np.array(total))


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[2:]]
    programs: dict[str, Callable[..., None]] = {"train": train_run, "stop": stop_in_second_epoch, "score": score}
    programs["lose"] = lose_a_worker
    programs[sys.argv[1]](*paths)
