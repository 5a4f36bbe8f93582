"""The network compiled: as told, or by what the run's own steps take; what it learns is the same."""

from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from contract.errors import TrainingError
from models.network import Network
from models.ranker import Ranker
from pipeline.training import training_run
from pipeline.training.checkpoint import load_ranker
from pipeline.training.dense_form import TIMED, WARM, DenseForm, Launch
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
CARD = torch.device("meta")
"""Anything but a processor, whose network never runs here."""


def network(**gate: Any) -> Network:
    return Ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2} | gate), CARD).network


def decided(seconds: dict[Launch, float], *, captures: bool = True) -> tuple[DenseForm, Network, str, int]:
    """What ``auto`` decides where a step takes so long in each form; what it says, and before which step."""
    now, module = [0.0], network()
    form = DenseForm(module, "auto", CARD, captures=captures, backend="eager", clock=lambda: now[0])
    said = []
    for _ in range(3 * (WARM + TIMED) + 1):
        said.append(form.step())
        now[0] += seconds[form.launch]
    (told,) = [each for each in said if each]
    return form, module, told, said.index(told)


@pytest.mark.parametrize(
    ("compiled", "captured", "stays"),
    [
        (0.5, 0.4, "captured"),
        (0.5, 0.49, "compiled"),
        (0.97, 2.0, "one by one"),
        (2.0, 0.9, "captured"),
    ],
)
def test_what_makes_steps_fastest_stays(compiled: float, captured: float, stays: str) -> None:
    form, module, told, place = decided({"one by one": 1.0, "compiled": compiled, "captured": captured})
    assert place == 3 * (WARM + TIMED)
    assert told.startswith(f"the network's operators stay {stays}; milliseconds a step: 1e+03 one by one, ")
    assert form.launch == stays
    assert (module._compiled_call_impl is not None) == (stays != "one by one")


class Twice(nn.Module):
    """A network without gates."""

    typed_gates = ()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 2 * rows


def no_compiler(_graph: Any, _inputs: Any) -> Any:
    message = "no C++ compiler"
    raise OSError(message)


def test_where_nothing_can_be_compiled_steps_go_on_one_by_one() -> None:
    module = Twice()
    form = DenseForm(cast("Network", module), "auto", CARD, backend=no_compiler)
    for _ in range(WARM + TIMED + 1):
        form.step()
    assert form.launch == "compiled"
    rows = torch.ones(3, 2)
    assert torch.equal(module(rows), module.forward(rows))
    said = form.step()
    assert said is not None
    assert "stay one by one: the network cannot be compiled on this machine" in said
    assert "no C++ compiler" in said
    assert (form.deciding, form.launch, form.step()) == (False, "one by one", None)


def test_what_is_told_to_be_compiled_and_cannot_be_is_refused() -> None:
    module = Twice()
    DenseForm(cast("Network", module), "on", torch.device("cpu"), backend=no_compiler)
    with pytest.raises(TrainingError, match=r"cannot be compiled .* set train.compile: off"):
        module(torch.ones(3, 2))


def test_validations_between_steps_are_not_timed() -> None:
    now, said = [0.0], list[str]()
    form = DenseForm(network(), "auto", CARD, captures=False, backend="eager", clock=lambda: now[0])
    for step in range(300):
        if told := form.step():
            said.append(told)
        now[0] += 0.5 if form.launch == "compiled" else 1.0
        if step % 55 == 54:
            # A small last batch, and a validation.
            now[0] += 100.0
            form.interrupted()
    assert said == ["the network's operators stay compiled; milliseconds a step: 1e+03 one by one, 500 compiled"]


def test_gradients_that_outlive_their_step_are_not_captured() -> None:
    form, _, told, place = decided({"one by one": 1.0, "compiled": 0.5, "captured": 0.1}, captures=False)
    assert place == 2 * (WARM + TIMED)
    assert form.launch == "compiled"
    assert "captured" not in told
    with pytest.raises(ValidationError, match="set accumulate to 1"):
        TrainConfig(compile="graphs", accumulate=2)


@pytest.mark.parametrize("gate", [{"name": "comet", "entropy": {"start": 0.1, "end": 1.0, "last_step": 9}}, {}])
def test_gates_that_change_with_the_step_and_processors_are_left_alone(gate: dict[str, Any]) -> None:
    form = DenseForm(network(**gate), "auto", CARD if gate else torch.device("cpu"), backend="eager")
    assert not form.deciding
    assert not any(form.step() for _ in range(100))


def train_compiled(features: Path, out: Path, wanted: str) -> None:
    """Train with the network compiled or not, in a process of its own."""
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 256, "learning_rate": 0.01, "compile": wanted}
    model = small_config(gate={"name": "top_k", "k": 2}, dropout=0.0, sparse_training="off")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "DenseForm", partial(DenseForm, backend="eager"))
        train(features, model, TrainConfig.model_validate(settings), out, lambda _: None)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA, train_rows=600)
    for wanted in ("off", "on", "graphs"):
        # A new interpreter: torch.compile cannot trace lines that hold probes (see `tests.covered_lines`).
        process = get_context("spawn").Process(target=train_compiled, args=(features, tmp_path / wanted, wanted))
        process.start()
        process.join()
        assert process.exitcode == 0
    plain, *others = (load_ranker(tmp_path / wanted, SCHEMA).state_dict() for wanted in ("off", "on", "graphs"))
    for compiled in others:
        for name, tensor in plain.items():
            torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
