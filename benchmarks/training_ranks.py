"""One rank of ``benchmarks.training``: passes over its world by torchrun, each timed by the wall clock.

``torchrun --nproc-per-node 2 -m benchmarks.training_ranks FOLDER PRECISION ROUNDS`` prints a JSON list of seconds.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.training_world import config_of, model_of
from contract.schema import Schema
from models.row_share import RowShare
from models.sharding import process_group
from pipeline.training.host_memory import freed_memory_kept
from pipeline.training.rank_agreement import Wishes
from pipeline.training.training_run import TrainingRun


def seconds_of_passes(folder: Path, precision: str, rounds: int) -> list[float]:
    """Each pass, after one that is not counted; all ranks begin together."""
    schema = Schema.load(folder)
    run = TrainingRun(schema, model_of(defaults=False), config_of(precision), folder, torch.device("cpu"), None)
    run.sharded.model.train()
    rows, taken = run.rows, []
    for _ in range(rounds + 1):
        dist.barrier()
        began = time.perf_counter()
        for begin, batch in zip(rows.bounds(), rows.epoch(0), strict=True):
            first, last = rows.share(begin)
            share = RowShare(first - begin, last - begin, rows.batch_end(begin) - begin, rows.repeated(begin))
            run.step(batch, share, 1, 1000, Wishes())
        dist.barrier()
        taken.append(time.perf_counter() - began)
    return taken[1:]


def main() -> None:
    """Measure, and let the first rank print."""
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")), freed_memory_kept():
        taken = seconds_of_passes(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
        if dist.get_rank() == 0:
            print(json.dumps(taken))


if __name__ == "__main__":
    main()
