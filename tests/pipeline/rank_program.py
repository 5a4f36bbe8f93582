"""One rank of the tests in test_ranks.py: ``train FEATURES RUN`` or ``score FEATURES RUN OUT``, under torchrun."""

import sys
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
from pipeline.training.checkpoint import resume
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config

MODEL = small_config(gate={"name": "top_k", "k": 2})


def train_run(features: Path, run_dir: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=128, learning_rate=0.01, embedding_learning_rate=0.1)
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
    if sys.argv[1] == "train":
        train_run(*paths)
    else:
        score(*paths)
