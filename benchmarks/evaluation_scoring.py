"""Scoring a bundle over Parquet, and raw days to a report, against what the work needs at least."""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import onnxruntime as ort

from benchmarks.feature_world import DAYS, START, recipe, write_events
from benchmarks.report import Case, case_of
from contract.graph_names import MODEL_FILE
from contract.schema import Schema
from features.batches import BatchReader
from features.encode_days import EncodedDays, FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.evaluate import EvaluateConfig
from pipeline.evaluation.predictions import BATCH_ROWS
from pipeline.evaluation.row_slices import LabelledRows
from pipeline.evaluation.streaming.scoring import score
from pipeline.report.evaluate_and_report import evaluate_and_report
from serving.graph.engine import Engine

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


def scoring(events: int, rounds: int) -> list[Case]:
    """All cases of scoring on one bundle, rounds interleaved."""
    with tempfile.TemporaryDirectory(prefix="moerank-scoring-") as scratch:
        bundle = make_bundle(Path(scratch), events)
        with _days(bundle) as days:
            cases = _scoring(bundle, days, rounds)
        return [*cases, *_raw_days(bundle, Path(scratch) / "out", rounds)]


def _days(bundle: Path) -> AbstractContextManager[EncodedDays]:
    first = (START + timedelta(days=DAYS - _JUDGED_DAYS)).date()
    return encoded_days(FittedRecipe.load(bundle), RawDays(first=first), _quiet)


def _scoring(bundle: Path, days: EncodedDays, rounds: int) -> list[Case]:
    engine = Engine(bundle)
    ready = [batch.inputs.arrays() for batch in BatchReader(days.dataset, engine.schema, BATCH_ROWS).epoch()]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle / MODEL_FILE), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feeds = [{name: arrays[name] for name in names} for arrays in ready]
    rows = sum(each[1] for each in _rows(days))

    def bare() -> None:
        for feed in feeds:
            session.run(None, feed)

    def ours(processes: int) -> Callable[[], None]:
        def work() -> None:
            for _ in score(bundle, days.dataset, rows, processes=processes):
                pass

        return work

    times: dict[str, list[float]] = {"bare": [], "one": [], "two": []}
    for _ in range(rounds):
        for name, work in (("bare", bare), ("one", ours(1)), ("two", ours(2))):
            times[name].append(_seconds(work))
    # Two processes are held against two sessions, each of which would take half of the bare one's time.
    pairs = list(zip(times["bare"], times["one"], times["two"], strict=True))
    name = f"scoring {rows:,} rows over Parquet"
    return [
        case_of(f"{name}, one process: bare onnxruntime / ours", [b / o for b, o, _ in pairs], "x", bound=0.85,
                better="higher"),
        case_of(f"{name}, two processes: half of bare onnxruntime / ours", [b / 2 / t for b, _, t in pairs], "x",
                bound=0.85, better="higher"),
        case_of(f"{name}: one process / two", [o / t for _, o, t in pairs], "x", bound=1.8, better="higher"),
    ]  # fmt: skip


def _rows(days: EncodedDays) -> list[tuple[Path, int]]:
    return [(part.file, int(part.wanted.sum())) for part in days.parts]


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

    pairs = [(_seconds(whole), _seconds(parts)) for _ in range(rounds)]
    name = "raw days to report / their features and scoring"
    return [
        case_of(name, [a / b for a, b in pairs], "x", bound=1.1),
        case_of("raw days to report", [a for a, _ in pairs], "s"),
    ]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
