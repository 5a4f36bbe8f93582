"""The benchmarks for a card: every line runs on the CPU, and without a card they say so and fail nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined] # torch imports it there, and lists it not
from torch.autograd.profiler_util import EventList, FunctionEvent

from benchmarks import gpu_serving, gpu_training
from models.export.cuda_form import measured_layers

no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")


def object_of(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@no_card
def test_without_a_card_they_say_so_and_fail_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (gpu_serving.main, gpu_training.main):
        assert main(["--json"]) == 0
        (missing,) = object_of(capsys)["not_installed"]
        assert missing["case"] == "skipped, for this machine has no card"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_every_line_of_the_serving_benchmark_runs_on_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "layers.json"
    assert gpu_serving.main(["--cpu-dry-run", "--json", "--table", str(table), "--kuairand", str(tmp_path)]) == 0
    found = object_of(capsys)
    assert len(found["cases"]) == 25
    assert all(case["bound"] is None for case in found["cases"])
    # What it writes is what an export reads.
    assert "dry run" in measured_layers(table).machine


@pytest.mark.slow
# torch.compile asks tensors for their gradients while it traces, and hides the warning from all but pytest.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_every_line_of_the_training_benchmark_runs_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_training.main(["--cpu-dry-run", "--json"]) == 0
    cases = object_of(capsys)["cases"]
    assert [str(case["case"]).partition(": ")[2].partition(" ")[0] for case in cases] == [
        "training,",
        "training,",
        "training,",
        "floor,",
        "floor,",
        "floor,",
        "training",
        "kernels'",
    ]


def test_a_kernel_counts_once_and_not_again_with_the_operator_that_launched_it() -> None:
    operator = FunctionEvent(1, "aten::mm", 0, 0, 90, use_device="cuda", stack=[])
    operator.append_kernel("gemm", 0, 40)
    on_card: dict[str, Any] = {"device_type": DeviceType.CUDA, "use_device": "cuda", "stack": []}
    kernel = FunctionEvent(2, "gemm", 0, 50, 90, **on_card)
    copy = FunctionEvent(3, "Memcpy HtoD (Pinned -> Device)", 1, 0, 500, **on_card)
    mark = FunctionEvent(4, "ProfilerStep", 0, 0, 500, is_user_annotation=True, **on_card)
    events = EventList([operator, kernel, copy, mark], use_device="cuda")
    events._build_tree()
    assert gpu_training.seconds_of(events.key_averages(), torch.device("cuda")) == pytest.approx(40e-6)
