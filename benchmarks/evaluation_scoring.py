"""Scoring a bundle over Parquet, and raw days to a report, against what the work needs at least."""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.evaluation_bare import BareRuntime, bare_processes
from benchmarks.feature_world import DAYS, START, recipe, write_events
from benchmarks.report import Case, case_of
from contract.dataset import DATASET_MANIFEST, DatasetManifest, DatasetPart, EncodedDataset
from contract.graph_names import MODEL_FILE
from contract.schema import Schema
from features.batches import BatchReader
from features.encode_days import EncodedDays, FittedRecipe, RawDays, encoded_days
from pipeline.console import say
from pipeline.evaluation.evaluate import EvaluateConfig
from pipeline.evaluation.predictions import BATCH_ROWS
from pipeline.evaluation.row_slices import LabelledRows
from pipeline.evaluation.streaming.scoring import ScoringProcess, score
from pipeline.report.evaluate_and_report import evaluate_and_report

_JUDGED_DAYS = 10


def make_bundle(folder: Path, events: int) -> Path:
    """A bundle of an untrained model of the usual size, with the recipe of the feature benchmark."""
    # Processes that score import this program again, and need none of these.
    import torch  # noqa: PLC0415

    from features.build import build  # noqa: PLC0415
    from features.recipe_files import save_recipe  # noqa: PLC0415
    from models.export import export  # noqa: PLC0415
    from models.model_config import ModelConfig  # noqa: PLC0415
    from models.ranker import Ranker  # noqa: PLC0415

    write_events(folder / "events.parquet", events)
    config, features, out = recipe(folder / "events.parquet"), folder / "features", folder / "bundle"
    build(config, features, _quiet)
    out.mkdir()
    schema = Schema.load(features)
    sample = next(BatchReader(features / "valid", schema, 64).epoch()).inputs
    torch.manual_seed(0)
    export(Ranker(schema, ModelConfig()).eval(), schema, sample, out / MODEL_FILE)
    schema.save(out)
    save_recipe(config, features, out)
    return out


def _quiet(_: str) -> None:
    """No progress."""


def scoring(events: int, rows: int, rounds: int) -> list[Case]:
    """All cases of scoring on one bundle, rounds interleaved."""
    with tempfile.TemporaryDirectory(prefix="moerank-scoring-") as scratch:
        say(f"scoring: a bundle of {events:,} events")
        bundle = make_bundle(Path(scratch), events)
        with _days(bundle) as days:
            cases = _scoring(bundle, repeated(days.dataset, rows, Path(scratch) / "rows"), rounds)
        return [*cases, *_raw_days(bundle, Path(scratch) / "out", rounds)]


def _days(bundle: Path) -> AbstractContextManager[EncodedDays]:
    first = (START + timedelta(days=DAYS - _JUDGED_DAYS)).date()
    return encoded_days(FittedRecipe.load(bundle), RawDays(first=first), _quiet)


def repeated(data: Path, rows: int, out: Path) -> Path:
    """A dataset of at least so many rows, out of the parts of another one over and over."""
    manifest = DatasetManifest.model_validate_json((data / DATASET_MANIFEST).read_bytes())
    out.mkdir()
    parts: list[DatasetPart] = []
    while sum(part.rows for part in parts) < rows:
        part = manifest.parts[len(parts) % len(manifest.parts)]
        name = f"part-{len(parts):05}.parquet"
        shutil.copyfile(data / part.file, out / name)
        parts.append(part.model_copy(update={"file": name}))
    manifest.model_copy(update={"parts": tuple(parts)}).save(out)
    return out


def _scoring(bundle: Path, data: Path, rounds: int) -> list[Case]:
    rows = EncodedDataset.open(data).rows

    def ours(processes: int) -> Callable[[], None]:
        def work() -> None:
            for _ in score(bundle, data, rows, processes=processes):
                pass

        return work

    bare = BareRuntime(bundle, data, 0, rows)
    with bare_processes(bundle, data, rows, 2) as two_bare:
        runs = {"bare": bare.score, "two bare": two_bare.score, "one": ours(1), "two": ours(2)}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds):
            say(f"scoring {rows:,} rows: round {number + 1} of {rounds}")
            for name, work in runs.items():
                times[name].append(_seconds(work))
    starts = [_start_seconds(bundle, data) for _ in range(rounds)]

    def ratios(above: str, below: str) -> list[float]:
        return [a / b for a, b in zip(times[above], times[below], strict=True)]

    name = f"scoring {rows:,} rows over Parquet"
    higher: dict[str, Any] = {"better": "higher"}
    return [
        case_of(f"{name}, one process: bare onnxruntime / ours", ratios("bare", "one"), "x", bound=0.85, **higher),
        case_of(f"{name}, two processes: bare onnxruntime in two / ours, its start included", ratios("two bare", "two"),
                "x", bound=0.85, **higher),
        case_of(f"{name}: one process / two, the start of the second included", ratios("one", "two"), "x", bound=1.8,
                **higher),
        case_of("bare onnxruntime on ready arrays: one process / two", ratios("bare", "two bare"), "x", **higher),
        case_of(f"{name}, one process", times["one"], "s"),
        case_of("start of the second process, until it has scored its first rows", starts, "s"),
    ]  # fmt: skip


def _start_seconds(bundle: Path, data: Path) -> float:
    """How long another process takes until it could go on, while this one waits."""
    with tempfile.TemporaryDirectory() as folder:
        job = {"bundle": str(bundle), "data": str(data), "folder": folder, "threads": 1}
        begin = time.perf_counter()
        with ScoringProcess(job) as other:
            other.score((0, BATCH_ROWS))
            return time.perf_counter() - begin


def _raw_days(bundle: Path, out: Path, rounds: int) -> list[Case]:
    """From raw days to a report, and the parts of it that have to be."""

    def whole() -> None:
        with _days(bundle) as days:
            rows = LabelledRows(days.dataset, days.name, days.zone)
            evaluate_and_report(bundle, rows, None, out, EvaluateConfig())

    def parts() -> None:
        with _days(bundle) as days:
            for _ in score(bundle, days.dataset, 0):
                pass

    pairs = []
    for number in range(rounds):
        say(f"raw days to report: round {number + 1} of {rounds}")
        pairs.append((_seconds(whole), _seconds(parts)))
    name = "raw days to report / their features and scoring"
    return [
        case_of(name, [a / b for a, b in pairs], "x", bound=1.1),
        case_of("raw days to report", [a for a, _ in pairs], "s"),
    ]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
