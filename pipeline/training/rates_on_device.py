"""The rates of learning of a step that was captured, which lie where it finds them."""

from contextlib import AbstractContextManager, ExitStack

import torch

from models.partial_steps import PartialSteps
from models.sharding import Sharded


class RatesOnDevice(AbstractContextManager[None]):
    """A factor on the device: of the network's rates, and of how far tables go; enter it around each step."""

    def __init__(self, sharded: Sharded, device: torch.device) -> None:
        """Begin with the full rates."""
        self._sharded = sharded
        self.factor = torch.ones((), device=device)
        """The share of the rates that the step takes."""
        tables = sharded.ranker.embeddings
        self._tables = None if tables is None else PartialSteps(tables, self.factor)
        self._step = ExitStack()

    def set(self, factor: float) -> None:
        """Say which share of the rates steps take from now on."""
        self._sharded.scale_learning_rates(factor, tables=1.0)
        self.factor.fill_(factor)

    def __enter__(self) -> None:
        """Let a step find them."""
        self._step.enter_context(self._sharded.rates_on_device(self.factor))
        if self._tables is not None:
            self._step.enter_context(self._tables.taken())

    def __exit__(self, *error: object) -> None:
        """Tables go back where they took the full step."""
        self._step.__exit__(*error)  # type: ignore[arg-type] # three of them
