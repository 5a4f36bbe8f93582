"""Whether the network runs operator by operator or compiled: as told, or whichever is faster in the run's own steps.

A small batch's step on a card is launches of small kernels, which `torch.compile` joins; what that gains depends on the
batch size and the model. The tables are torchrec's and are never compiled. A compiled network rounds otherwise, so
weights are not the same to the bit.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn

from models.gates.annealing import Schedule
from models.network import Network

Compile = Literal["off", "on", "auto"]
WARM, TIMED = 10, 20
"""Steps that each form takes before it is timed, and while it is."""
WORTH = 0.95
"""Share of the other form's time above which it stays as it is."""


class DenseForm:
    """Decides for one network; tell it before each step."""

    def __init__(
        self,
        network: Network,
        wanted: Compile,
        device: torch.device,
        *,
        backend: str = "inductor",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Compile at once for ``on``; ``auto`` times both on a card, and does nothing on a processor."""
        self._network, self._device, self._backend, self._clock = network, device, backend, clock
        self._steps, self._began, self._seconds = 0, 0.0, list[float]()
        steady = not any(changes_with_the_step(gate) for gate in network.typed_gates)
        self.deciding = wanted == "auto" and device.type != "cpu" and steady
        if wanted == "on" and steady:
            self._compile()

    def step(self) -> str | None:
        """Another step is about to begin; what was decided, told once."""
        if not self.deciding:
            return None
        place = self._steps % (WARM + TIMED)
        if place == WARM:
            self._began = self._now()
        if place == 0 and self._steps:
            self._seconds.append(self._now() - self._began)
            if len(self._seconds) == 1:
                self._compile()
        self._steps += 1
        return self._decided() if len(self._seconds) > 1 else None

    def _decided(self) -> str:
        self.deciding = False
        plain, compiled = (1e3 * seconds / TIMED for seconds in self._seconds)
        pays = compiled <= WORTH * plain
        if not pays:
            self._network._compiled_call_impl = None  # noqa: SLF001 what nn.Module.compile sets; it has no way back
        name = "compiled" if pays else "not compiled"
        return f"the network stays {name}: {compiled:.3g} ms a step compiled, {plain:.3g} as it is"

    def _compile(self) -> None:
        # The last batch of an epoch is smaller than the others: two sizes, each compiled for itself.
        self._network.compile(backend=self._backend, dynamic=False)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def as_it_is() -> AbstractContextManager[object]:
    """Runs networks uncompiled: where modules are watched, and for rows in other numbers than a step has."""
    return torch.compiler.set_stance("force_eager")


def changes_with_the_step(gate: nn.Module) -> bool:
    """Whether a gate reads numbers of the step, with each of which the network would be compiled anew."""
    config = getattr(gate, "config", None)
    scheduled = any(isinstance(value, Schedule) for value in vars(config).values()) if config is not None else False
    return scheduled or getattr(gate, "permutation", None) is not None
