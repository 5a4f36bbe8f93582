"""Training on a card, from Parquet to the update, against its floor: ``python -m benchmarks.gpu_training [--json]``.

The floor (`gpu_training_floor`) is the best of an eager step, a CUDA graph and a compiled step over ids that lie ready
on the card. The bounds are for one H100. Without a card it says so and ends; ``--cpu-dry-run`` runs every line on the
CPU, with tiny sizes, and its figures mean nothing.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined] # torch imports it there, and lists it not
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_training_data import TINY, TrainingSizes, config_of, schema_of, write_features
from benchmarks.gpu_training_floor import Step, floor_steps
from benchmarks.report import Case, NotInstalled, arguments, case_of, finish
from contract.inputs import Batch
from models.row_share import RowShare
from models.sharding import process_group
from pipeline.training.host_memory import freed_memory_kept
from pipeline.training.loss_meter import LossMeter
from pipeline.training.rank_agreement import Wishes
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_run import TrainingRun

EPOCHS = 1000
"""More than are run: the rates of learning follow from how many steps there would be."""
FORMS: tuple[tuple[str, str], ...] = (("off", "off"), ("auto", "off"), ("auto", "auto"))
"""Whether steps are captured, and whether the network is compiled; the fastest is held to the bounds."""
BOUNDS = {4096: 0.5, 16384: 0.7, 65536: 0.5}
KERNEL_SHARE = 0.7


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases and print them; exit code 1 if a bound does not hold, 0 without a card."""
    parser = arguments(__doc__)
    parser.add_argument("--cpu-dry-run", action="store_true", help="run every line on the CPU, with tiny sizes")
    chosen = parser.parse_args(argv)
    if not chosen.cpu_dry_run and not torch.cuda.is_available():
        missing = NotInstalled("skipped, for this machine has no card", "a CUDA device that torch finds")
        return finish("gpu_training", [missing], as_json=chosen.json)
    sizes = TINY if chosen.cpu_dry_run else TrainingSizes()
    device = torch.device("cpu") if chosen.cpu_dry_run else torch.device("cuda", 0)
    cases: list[Case] = []
    # As `train` has it.
    with tempfile.TemporaryDirectory() as name, process_group(device), freed_memory_kept():
        features = write_features(Path(name) / "features", sizes, sizes.kept)
        for batch in sizes.batches:
            cases += measure(features, sizes, batch, device)
    if chosen.cpu_dry_run:
        print("a dry run on the CPU: every line ran, the figures mean nothing, and no bound is looked at")
        cases = [case_of(case.case, [case.value], case.unit) for case in cases]
    return finish("gpu_training", cases, as_json=chosen.json)


def measure(features: Path, sizes: TrainingSizes, batch: int, device: torch.device) -> list[Case]:
    """Rows a second of training and of its floor, and the kernels' share of a step."""
    cases, speed, share = [], 0.0, 0.0
    for capture, wanted in FORMS:
        settings = {"batch_size": batch, "bf16": "on", "epochs": EPOCHS, "compile": wanted, "capture": capture}
        config = TrainConfig.model_validate(settings)
        run = TrainingRun(schema_of(sizes), config_of(sizes), config, features, device, None)
        run.sharded.model.train()
        taken = trained(run)
        while run.form.deciding:
            next(taken)
        # From the beginning of an epoch, so that none ends while its steps are timed.
        taken.close()
        taken = trained(run)
        step: Step = partial(next, taken)
        seconds = seconds_a_step(step, sizes, device)
        launch = "captured whole" if run.step.graph is not None else "launched"
        what = f"batch {batch}: training, from Parquet, {launch}, compile {wanted} ({run.form.launch})"
        cases.append(case_of(what, [batch / seconds], "rows/s", better="higher"))
        if batch / seconds > speed:
            # A recorded step takes longer, its kernels do not.
            speed, share = batch / seconds, kernel_seconds(step, sizes, device) / seconds
    floors = {
        name: batch / seconds_a_step(step, sizes, device) for name, step in floor_steps(sizes, batch, device).items()
    }
    best = max(floors, key=lambda name: floors[name])
    ratio, bound = speed / floors[best], BOUNDS.get(batch)
    kernels = KERNEL_SHARE if batch == min(BOUNDS) else None
    return [
        *cases,
        *(case_of(f"batch {batch}: floor, {name}", [rate], "rows/s", better="higher") for name, rate in floors.items()),
        case_of(f"batch {batch}: training / floor ({best})", [ratio], "x", bound=bound, better="higher"),
        case_of(f"batch {batch}: kernels' share of a step", [share], "", bound=kernels, better="higher"),
    ]


def trained(run: TrainingRun) -> Generator[None]:
    """Steps of training, one each time, epoch after epoch, with the tally of their losses."""
    rows, step, meter = run.rows, 0, LossMeter(run.schema.tasks, run.device)
    for epoch in count():
        batches: Iterator[Batch] = run.step.copies.ahead(rows.stretches(epoch, rows=run.step.copies.rows))
        for begin, batch in zip(rows.bounds(0), batches, strict=True):
            first, last = rows.share(begin)
            share = RowShare(first - begin, last - begin, rows.batch_end(begin) - begin, rows.repeated(begin))
            run.form.step()
            losses = run.step(batch, share, step, run.total_steps, Wishes()).losses
            if losses is not None:
                meter.add(losses)
            step += 1
            yield


def seconds_a_step(step: Callable[[], object], sizes: TrainingSizes, device: torch.device) -> float:
    """Of so many steps after a warm-up, to the end of the last one's work."""
    for _ in range(sizes.warm_up):
        step()
    _wait(device)
    began = time.perf_counter()
    for _ in range(sizes.steps):
        step()
    _wait(device)
    return (time.perf_counter() - began) / sizes.steps


def kernel_seconds(step: Callable[[], object], sizes: TrainingSizes, device: torch.device) -> float:
    """How long kernels run in a step; on a processor operators stand for them."""
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    steps = max(1, sizes.steps // 4)
    _wait(device)
    with profile(activities=kinds) as recorded:
        for _ in range(steps):
            step()
        _wait(device)
    return seconds_of(recorded.key_averages(), device) / steps


def seconds_of(events: EventList, device: torch.device) -> float:
    """Of the kernels among what was recorded, copies left out: they run beside them.

    An operator's own device time is that of the kernels it launched, which are events themselves.
    """
    if device.type != "cuda":
        return 1e-6 * float(sum(event.self_cpu_time_total for event in events))
    kernels = (e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation)
    return 1e-6 * float(sum(e.self_device_time_total for e in kernels if not e.key.startswith("Memcpy")))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
