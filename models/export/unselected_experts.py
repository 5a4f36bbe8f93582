"""Reaching experts that no row selects: the routing logits of graph and model are shifted alike.

A trained gate may have left an expert for good. Its part of the graph is compared all the same: with other biases of
the gates' projections, which both take, other experts are selected.

Shape legend: L logits of a gate.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from models.gates import Gate
from models.ranker import Ranker

_TRIALS = 32
_SIZES = (0.5, 1.0, 2.0, 5.0)

Shift = dict[str, NDArray[np.float32]]
"""What is added to the logits of a gate [L], by the name of its bias in the graph."""


def projections(ranker: Ranker) -> dict[str, Gate]:
    """The gates that have a projection, by the name of its bias in the graph."""
    return {
        f"network.levels.{place}.router.gates.{number}.projection.bias_H": gate
        for place, level in enumerate(ranker.network.typed_levels)
        for number, gate in enumerate(level.typed_gates)
        if gate.projection is not None
    }


def shifts(ranker: Ranker, seed: int) -> Iterator[Shift]:
    """Random shifts, one after the other; none where no gate has a projection."""
    rng = np.random.default_rng(seed)
    gates = projections(ranker)
    for trial in range(_TRIALS if gates else 0):
        yield {
            name: rng.normal(0.0, _SIZES[trial % len(_SIZES)], gate.projection.bias.shape).astype(np.float32)
            for name, gate in gates.items()
            if gate.projection is not None
        }


def shifted_biases(path: Path, shift: Shift) -> dict[str, onnxruntime.OrtValue]:
    """The biases of a graph file with the shift, to run it with instead of its own."""
    initializers = {each.name: each for each in onnx.load(path, load_external_data=False).graph.initializer}
    own = {name: numpy_helper.to_array(initializers[name]) for name in shift if name in initializers}
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(bias + shift[name]) for name, bias in own.items()}


@contextmanager
def shifted(ranker: Ranker, shift: Shift) -> Iterator[None]:
    """The model with the shift, for as long as the context lasts."""
    gates = projections(ranker)
    hooks = []
    for name, added in shift.items():
        projection = gates[name].projection
        assert projection is not None  # noqa: S101 these gates have one; this tells the type checker
        hooks.append(projection.register_forward_hook(_adding(torch.from_numpy(added))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(added_L: torch.Tensor) -> Callable[[torch.nn.Module, object, torch.Tensor], torch.Tensor]:
    def add(module: torch.nn.Module, inputs: object, logits_BL: torch.Tensor) -> torch.Tensor:
        del module, inputs
        return logits_BL + added_L

    return add
