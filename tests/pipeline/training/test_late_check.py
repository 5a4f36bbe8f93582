"""Steps whose host asks the device nothing, as on a card: the same weights, the same refusals, no number read."""

import json
import re
import traceback
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from contract.errors import TrainingError
from pipeline.training import training_run
from pipeline.training.checkpoint import latest, load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_step import StepResult, TrainingStep
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
# What a card computes: all experts at once, or pairs of row and expert; which rows select which is never asked.
MODEL = small_config(gate={"name": "top_k", "k": 2}, sparse_training="off")
FAST: dict[str, Any] = {"epochs": 3, "batch_size": 256, "learning_rate": 0.01, "embedding_learning_rate": 0.1}
ON_HOST = {"split_table_batched_embeddings_ops_training.py"}
"""Files that read a count of steps, which lies on the host on any machine."""
ASKS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select")


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(FAST | changes)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA, train_rows=1024)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as on a card."""
    monkeypatch.setattr(training_run, "TrainingStep", partial(TrainingStep, waits=False))


def silent(text: str) -> None:
    del text


class NumbersRead(TorchDispatchMode):
    """Notes every operator for whose answer a host would wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch has no annotation there
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(ASKS):
            files = {Path(frame.filename).name for frame in traceback.extract_stack()}
            if not files & ON_HOST:
                self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


class ReadsOfPython(TorchFunctionMode):
    """Notes calls that wait on a card, and on a processor run no operator that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        sized = name == "repeat_interleave" and isinstance(args[1], torch.Tensor) and "output_size" not in kwargs
        if name in {"tolist", "numpy", "cpu"} or sized:
            stack = [Path(frame.filename).name for frame in traceback.extract_stack()]
            if not {*stack} & {*ON_HOST, "late_check.py"}:
                self.asked.append(f"{name} in {stack[-2]}")
        return func(*args, **kwargs)


def test_the_same_weights_are_learned_as_by_a_host_that_waits(
    features: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = config(gradient_clip=1.0, average={"name": "ema"})
    train(features, MODEL, settings, tmp_path / "waits", silent)
    request.getfixturevalue("late")
    train(features, MODEL, settings, tmp_path / "late", silent)
    expected = load_ranker(tmp_path / "waits", SCHEMA).state_dict()
    for name, tensor in load_ranker(tmp_path / "late", SCHEMA).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.usefixtures("late")
def test_a_batch_that_is_not_finite_moves_nothing_and_is_told_a_step_later(tmp_path: Path) -> None:
    broken = write_features(tmp_path / "features", SCHEMA, broken={"price": float("nan")})
    said: list[str] = []
    result = train(broken, MODEL, config(on_bad_batch="skip"), tmp_path / "run", said.append)
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    assert [epoch["skipped_batches"] for epoch in epochs] == [1, 1, 1]
    assert all(epoch["train"]["total"]["loss"] < 10 for epoch in epochs)
    told = [line for line in said if line.startswith("skipped a batch: step")]
    assert len(told) == 3
    assert "feature price" in told[0]
    assert all(tensor.isfinite().all() for tensor in load_ranker(tmp_path / "run", SCHEMA).state_dict().values())
    assert result["metrics"]["like"]["auc"] > 0.6


@pytest.mark.parametrize("average", ["ema", "mean"])
def test_bad_batches_in_a_row_leave_no_trace(tmp_path: Path, request: pytest.FixtureRequest, average: str) -> None:
    """In the norms' statistics, which an earlier step's repair could overwrite, and in the average."""
    nan = {"price": float("nan")}
    broken = write_features(tmp_path / "features", SCHEMA, train_rows=1024, broken=nan, broken_rows=6)
    settings = config(batch_size=64, on_bad_batch="skip", average={"name": average})
    train(broken, MODEL, settings, tmp_path / "waits", silent)
    request.getfixturevalue("late")
    said: list[str] = []
    train(broken, MODEL, settings, tmp_path / "late", said.append)
    steps = [int(found[1]) for line in said if (found := re.match(r"skipped a batch: step (\d+)", line))]
    assert any(second - first == 1 for first, second in pairwise(steps))
    expected = load_ranker(tmp_path / "waits", SCHEMA).state_dict()
    for name, tensor in load_ranker(tmp_path / "late", SCHEMA).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.usefixtures("late")
def test_without_leave_to_skip_it_stops_with_row_and_values_and_saves_nothing(tmp_path: Path) -> None:
    broken = write_features(tmp_path / "features", SCHEMA, broken={"price": float("nan")})
    with pytest.raises(TrainingError) as caught:
        train(broken, MODEL, config(checkpoint={"every_steps": 1}), tmp_path / "run", silent)
    told = str(caught.value)
    bad = re.match(r"step (\d+): the loss, and first of all feature price, is not finite; rows of the batch:\n", told)
    assert bad is not None
    assert "user hash 1024, item hash 1024: like=" in told
    saved = latest(tmp_path / "run")
    assert saved is None or int(saved.name.rpartition("-")[2]) <= int(bad[1])


@pytest.mark.usefixtures("late")
def test_gradients_that_are_not_finite_are_told_with_the_parameter(features: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: .* is not finite"):
        train(features, small_config(norm="none", dropout=0.0), config(learning_rate=1e30), tmp_path, silent)


def numbers_read(
    features: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, gate: dict[str, Any], settings: dict[str, Any]
) -> list[list[str]]:
    """What the steps of an epoch read, without the first, in which torchrec looks at the ids."""
    steps: list[list[str]] = []
    step = TrainingStep.__call__

    def watched(self: TrainingStep, *args: Any, **kwargs: Any) -> StepResult:
        with NumbersRead() as numbers, ReadsOfPython() as reads:
            result = step(self, *args, **kwargs)
        steps.append(numbers.asked + reads.asked)
        return result

    monkeypatch.setattr(TrainingStep, "__call__", watched)
    train(features, small_config(gate=gate, sparse_training="off"), config(epochs=1, **settings), run_dir, silent)
    assert len(steps) > 2
    return steps[1:]


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(
    ("gate", "settings"),
    [
        ({"name": "softmax"}, {}),
        ({"name": "hash", "feature": "item"}, {}),
        ({"name": "top_k", "k": 2}, {"gradient_clip": 1.0}),
        ({"name": "dselect_k", "k": 2}, {"on_bad_batch": "skip", "average": {"name": "ema"}}),
        ({"name": "comet", "k": 2}, {"schedule": "cosine"}),
    ],
)
def test_a_step_reads_no_number_from_the_device(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert not any(numbers_read(features, tmp_path, monkeypatch, gate, settings))


def test_a_host_that_waits_reads_whether_loss_gradients_and_columns_are_finite(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(asked) for asked in numbers_read(features, tmp_path, monkeypatch, {"name": "softmax"}, {})] == [3] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
# It sees most that waits, and says so whenever it is switched; fbgemm names the kernels that it takes.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.filterwarnings("ignore:.*B200 optimization:UserWarning")
def test_on_a_card_torch_itself_sees_no_step_wait(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, count = TrainingStep.__call__, 0

    def watched(self: TrainingStep, *args: Any, **kwargs: Any) -> StepResult:
        nonlocal count
        count += 1
        # In the first one torchrec looks at the ids, and fbgemm fetches its count of steps.
        torch.cuda.set_sync_debug_mode("error" if count > 1 else "default")
        try:
            return step(self, *args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(TrainingStep, "__call__", watched)
    train(features, MODEL, config(epochs=1), tmp_path, silent)
    assert count > 2
