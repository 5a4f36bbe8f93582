"""The network compiled: as told, or by what the run's own steps take; what it learns is the same."""

from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from models.network import Network
from models.ranker import Ranker
from pipeline.training import training_run
from pipeline.training.checkpoint import load_ranker
from pipeline.training.dense_form import TIMED, WARM, DenseForm
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
CARD = torch.device("meta")
"""Anything but a processor, whose network never runs here."""


def network(**gate: Any) -> Network:
    return Ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2} | gate), CARD).network


def is_compiled(module: Network) -> bool:
    return module._compiled_call_impl is not None


@pytest.mark.parametrize(("compiled_seconds", "stays"), [(0.5, True), (0.97, False), (2.0, False)])
def test_it_stays_compiled_where_that_is_faster(compiled_seconds: float, *, stays: bool) -> None:
    now, module = [0.0], network()
    form = DenseForm(module, "auto", CARD, backend="eager", clock=lambda: now[0])
    said = []
    for _ in range(3 * (WARM + TIMED)):
        said.append(form.step())
        now[0] += compiled_seconds if is_compiled(module) else 1.0
    (told,) = [each for each in said if each]
    assert said.index(told) == 2 * (WARM + TIMED)
    assert told.startswith("the network stays compiled: " if stays else "the network stays not compiled: ")
    assert is_compiled(module) == stays


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
    for wanted in ("off", "on"):
        # A new interpreter: torch.compile cannot trace lines that hold probes (see `tests.covered_lines`).
        process = get_context("spawn").Process(target=train_compiled, args=(features, tmp_path / wanted, wanted))
        process.start()
        process.join()
        assert process.exitcode == 0
    plain, compiled = (load_ranker(tmp_path / wanted, SCHEMA).state_dict() for wanted in ("off", "on"))
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
