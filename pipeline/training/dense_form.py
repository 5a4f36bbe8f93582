"""How the network's operators are launched: one by one, compiled, or compiled and captured; as told, or as is fastest.

A small batch's step on a card is launches of small kernels. `torch.compile` joins them, and may capture what is left as
CUDA graphs, whose replay is one launch for the forward and one for the backward pass; what either gains depends on the
batch size and the model, so ``auto`` times all three in the run's own steps. The tables are torchrec's and are never
compiled. A compiled network rounds otherwise, so weights are not the same to the bit.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from contract.errors import TrainingError
from models.gates.annealing import Schedule
from models.network import Network

Compile = Literal["off", "on", "graphs", "auto"]
Launch = Literal["one by one", "compiled", "captured"]
WARM, TIMED = 10, 20
"""Steps that each form takes before it is timed, and while it is."""
WORTH = 0.95
"""Share of a simpler form's time above which that one stays."""
_TOLD: dict[Compile, Launch] = {"on": "compiled", "graphs": "captured"}
_CANDIDATES: tuple[Launch, ...] = ("one by one", "compiled", "captured")


class DenseForm:
    """Decides for one network; tell it before each step."""

    def __init__(
        self,
        network: Network,
        wanted: Compile,
        device: torch.device,
        *,
        captures: bool = True,
        changed: Callable[[], None] | None = None,
        backend: str | Callable[..., Any] = "inductor",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what is told at once; ``auto`` times all on a card, and does nothing on a processor.

        `captures`: gradients are used up in the step that they are of, before its graphs write again. `changed`:
        called when the form has changed, for what has captured the network.
        """
        self._changed = changed
        self._network, self._device, self._backend, self._clock = network, device, backend, clock
        self._place, self._began, self._seconds = 0, 0.0, dict[Launch, float]()
        self._candidates = _CANDIDATES if captures else _CANDIDATES[:-1]
        self._compiled: dict[Launch, Any] = {"one by one": None}
        self.launch: Launch = "one by one"
        steady = not any(changes_with_the_step(gate) for gate in network.typed_gates)
        self.deciding = wanted == "auto" and device.type != "cpu" and steady
        self._is_told, self._failure = wanted in _TOLD, ""
        if wanted in _TOLD and steady:
            self._take(_TOLD[wanted])

    def step(self) -> str | None:
        """Another step is about to begin; what was decided, told once."""
        told, self._failure = self._failure or (self._time() if self.deciding else None), ""
        if self.launch == "captured" and self._device.type == "cuda":
            # What the last step's graphs wrote may be overwritten: its gradients are used up by now.
            torch.compiler.cudagraph_mark_step_begin()
        return told

    def interrupted(self) -> None:
        """Something else than steps took time, or a batch had another size: steps are timed anew from the next on."""
        self._place = min(self._place, WARM)

    def _time(self) -> str | None:
        if self._place == WARM:
            self._began = self._now()
        if self._place == WARM + TIMED:
            self._seconds[self.launch] = self._now() - self._began
            if len(self._seconds) == len(self._candidates):
                return self._decided()
            self._take(self._candidates[len(self._seconds)])
            self._place = 0
        self._place += 1
        return None

    def _decided(self) -> str:
        self.deciding = False
        best = self._candidates[0]
        for each in self._candidates[1:]:
            if self._seconds[each] <= WORTH * self._seconds[best]:
                best = each
        self._take(best)
        figures = ", ".join(f"{1e3 * self._seconds[each] / TIMED:.3g} {each}" for each in self._candidates)
        return f"the network's operators stay {best}; milliseconds a step: {figures}"

    def _take(self, launch: Launch) -> None:
        self.launch = launch
        if launch not in self._compiled:
            mode = {"mode": "reduce-overhead"} if launch == "captured" else {}
            # The last batch of an epoch is smaller than the others: two sizes, each compiled for itself.
            self._network.compile(backend=self._backend, dynamic=False, **mode)
            # What it sets; it has no way back.
            self._compiled[launch] = self._or_one_by_one(self._network._compiled_call_impl)  # noqa: SLF001
        self._network._compiled_call_impl = self._compiled[launch]  # noqa: SLF001
        if self._changed is not None:
            self._changed()

    def _or_one_by_one(self, compiled: Any) -> Callable[..., Any]:
        """A compiled call that does without where this machine cannot compile, as without a C++ compiler.

        Raises:
            TrainingError: it cannot, and was told to.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return compiled(*args, **kwargs)
            except BackendCompilerFailed as error:
                reason = f"the network cannot be compiled on this machine: {_first_line(error.inner_exception)}"
                if self._is_told:
                    message = (
                        f"{reason}; set train.compile: off, or mend the compiler or its cache (TORCHINDUCTOR_CACHE_DIR)"
                    )
                    raise TrainingError(message) from error
                self.deciding, self._failure = False, f"the network's operators stay one by one: {reason}"
                self._take("one by one")
                return self._network.forward(*args, **kwargs)

        return call

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def as_it_is() -> AbstractContextManager[object]:
    """Runs networks uncompiled: where modules are watched, and for rows in other numbers than a step has."""
    return torch.compiler.set_stance("force_eager")


def changes_with_the_step(gate: nn.Module) -> bool:
    """Whether a gate reads numbers of the step, with each of which the network would be compiled anew."""
    config = getattr(gate, "config", None)
    scheduled = any(isinstance(value, Schedule) for value in vars(config).values()) if config is not None else False
    return scheduled or getattr(gate, "permutation", None) is not None
