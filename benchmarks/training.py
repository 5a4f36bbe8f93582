"""Training's speed, end to end from Parquet: against a fused floor, plain PyTorch, torch-rechub and its own defaults.

``python -m benchmarks.training [--quick] [--reader] [--rounds 5] [--json]``; one thread, batch 4096, 20 Zipf ids whose
vocabularies hold 1.9 million rows together, 10 dense columns, 4 tasks, 8 experts 256-128 and softmax gates. A round
runs each form over the same batches one after the other, and figures are ratios within a round by CPU time, so that a
busy machine slows all alike. The floor is fbgemm's fused tables with the same network on batches that lie in memory;
the plain reference is a sparse embedding with fused Adam on the same.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from benchmarks.report import Case, NotInstalled, arguments, case_of, finish
from benchmarks.training_rivals import floor_steps, plain_steps, rechub_steps
from benchmarks.training_world import BATCH, World, config_of, make_world, model_of
from features.batches import BatchReader
from models.row_share import RowShare
from models.sharding import process_group
from pipeline.training.checkpoint_writer import CheckpointWriter
from pipeline.training.host_memory import freed_memory_kept
from pipeline.training.rank_agreement import Wishes
from pipeline.training.run_progress import RunProgress
from pipeline.training.train_config import CheckpointConfig
from pipeline.training.training_run import TrainingRun

Pass = Callable[[], None]
"""One pass over all rows of the world."""
BOUNDS = {
    "floor, fp32": 0.90,
    "floor, bf16": 0.92,
    "plain PyTorch, fp32": 1.05,
    "plain PyTorch, bf16": 1.2,
    "torch-rechub, fp32": 2.0,
    "torch-rechub, bf16": 4.0,
}
READER_WARM_UP = 5
"""Passes of the reader that are not counted, after the first one, until it has all the memory that it keeps."""
RANK_BOUNDS = {"fp32": 1.65, "bf16": 1.4}


def our_pass(world: World, precision: str, *, defaults: bool = False) -> tuple[TrainingRun, Pass]:
    """Our own pass from Parquet: reading and steps, without validation and checkpoints."""
    run = TrainingRun(
        world.schema, model_of(defaults=defaults), config_of(precision), world.folder, torch.device("cpu"), None
    )
    run.sharded.model.train()

    def work() -> None:
        rows = run.rows
        for begin, batch in zip(rows.bounds(), rows.epoch(0), strict=True):
            first, last = rows.share(begin)
            run.step(batch, RowShare(first, last, last - first), 1, 1000, Wishes())

    return run, work


def seconds(work: Pass) -> float:
    """CPU seconds of a pass."""
    started = time.process_time()
    work()
    return time.process_time() - started


def rounds_of(passes: dict[str, Pass], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each pass, round by round, after one that is not counted."""
    for work in passes.values():
        work()
    seconds_of: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, work in passes.items():
            seconds_of[name].append(seconds(work))
    return seconds_of


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def speeds(world: World, precision: str, rounds: int) -> Iterator[Case | NotInstalled]:
    """One precision's rows."""
    _, ours = our_pass(world, precision)
    _, defaults = our_pass(world, precision, defaults=True)
    autocast = torch.bfloat16 if precision == "bf16" else None
    passes = {"moerank": ours, "defaults": defaults}
    passes |= {"floor": floor_steps(world, autocast), "plain PyTorch": plain_steps(world, autocast)}
    rechub = rechub_steps(world, autocast)
    if rechub is not None:
        passes["torch-rechub"] = rechub
    taken = rounds_of(passes, rounds)
    for name, each in taken.items():
        yield case_of(f"{name}, {precision}", [world.rows / s for s in each], "rows a CPU s", better="higher")
    for rival in ("floor", "plain PyTorch", "torch-rechub"):
        if rival not in taken:
            yield NotInstalled(f"moerank / {rival}, {precision}", "torch-rechub")
            continue
        factors, key = ratios(taken[rival], taken["moerank"]), f"{rival}, {precision}"
        yield case_of(f"moerank / {key}", factors, "x", bound=BOUNDS[key], better="higher")
    bound = 1.3 if precision == "bf16" else None
    slower = ratios(taken["defaults"], taken["moerank"])
    yield case_of(f"defaults / bare, time, {precision}", slower, "x", bound=bound)


def ranks(world: World, precision: str, rounds: int) -> Case:
    """How much sooner two processes are done than one, on the same global batches, by the wall clock.

    Processes are started in turns, but where other work runs, the figure means little.
    """
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, seconds_of_count in taken.items():
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            program = ["-m", "benchmarks.training_ranks", str(world.folder), precision, "1"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
            run = subprocess.run([*launch, *program], env=environment, check=True, capture_output=True, text=True)
            seconds_of_count.extend(json.loads(run.stdout.splitlines()[-1]))
    bound = RANK_BOUNDS[precision]
    return case_of(f"1 -> 2 processes, {precision}", ratios(taken[1], taken[2]), "x", bound=bound, better="higher")


def exactness(world: World, rounds: int) -> Case:
    """What float64, which keeps runs on other numbers of ranks together, costs."""
    taken = rounds_of({p: our_pass(world, p)[1] for p in ("fp64", "fp32")}, rounds)
    return case_of("fp64 / fp32, time", ratios(taken["fp64"], taken["fp32"]), "x")


def reader(world: World, rounds: int) -> Iterator[Case]:
    """Reading alone, rows mixed: the first pass, which takes memory anew, and passes that have it, as training has."""

    def work() -> None:
        for _ in BatchReader(world.folder / "train", world.schema, BATCH, seed=0).epoch(0):
            pass

    passes = [world.rows / seconds(work) / 1e6 for _ in range(1 + READER_WARM_UP + rounds)]
    steady = passes[1 + READER_WARM_UP :]
    yield case_of("reader, 30 columns, mixed, first pass", passes[:1], "M rows a CPU s", better="higher")
    yield case_of("reader, 30 columns, mixed, steady", steady, "M rows a CPU s", bound=2.0, better="higher")


def stall(world: World, rounds: int) -> Iterator[Case]:
    """How long training waits for a checkpoint, and what writing it takes of the CPU, as shares of a minute."""
    run, _ = our_pass(world, "fp32")
    waits, writes = [], []
    with (
        TemporaryDirectory() as folder,
        CheckpointWriter(Path(folder), run.sharded, run.weighting, CheckpointConfig()) as writer,
    ):
        for number in range(rounds + 1):
            began, cpu = time.perf_counter(), time.process_time()
            writer.save(RunProgress(step=number))
            waited = time.perf_counter() - began
            writer.wait()
            if number:
                waits.append(100 * waited / 60)
                writes.append(100 * (time.process_time() - cpu) / 60)
    yield case_of("checkpoint a minute: training waits", waits, "% of the time", bound=2.0)
    yield case_of("checkpoint a minute: copied and written", writes, "% of a core")


def everything(world: World, rounds: int) -> Iterator[Case | NotInstalled]:
    """All cases, one after the other."""
    for precision in ("fp32", "bf16"):
        yield from speeds(world, precision, rounds)
        yield ranks(world, precision, rounds)
    yield exactness(world, rounds)
    yield from reader(world, rounds)
    yield from stall(world, rounds)


def main() -> int:
    """Measure everything, or reading alone, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="4 batches and small vocabularies")
    parser.add_argument("--reader", action="store_true", help="reading alone")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases: list[Case | NotInstalled] = []
    # As `pipeline.training.train` has it; the rivals, too.
    with TemporaryDirectory() as folder, process_group(torch.device("cpu")), freed_memory_kept():
        assert dist.get_world_size() == 1  # noqa: S101 this benchmark is of one process
        world = make_world(Path(folder), quick=options.quick)
        cases += reader(world, options.rounds) if options.reader else everything(world, options.rounds)
    return finish("training", cases, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
