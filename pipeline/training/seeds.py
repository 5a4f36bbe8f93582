"""Random seeds: any 64-bit value, and from it a seed for each step, so that a resumed run meets the same noise."""

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field

_SMALL = 1 << 24
"""Below it, seed and step stand side by side in 64 bits; above, they are mixed."""
_STEP_BITS = 40

Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64), AfterValidator(lambda seed: seed % (1 << 64))]
"""A signed or unsigned 64-bit number, kept as the unsigned one with the same bits."""


def seed_of_step(seed: int, step: int) -> int:
    """The seed of a step's dropout and noise, the same on every rank.

    Example:
        >>> seed_of_step(1, 5) == (1 << 40) + 5
        True
        >>> 0 <= seed_of_step(20261123, 5) < 1 << 64
        True
    """
    if seed < _SMALL:
        return (seed << _STEP_BITS) + step
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the processor's generator and the device's own: what `torch.manual_seed` does of use here.

    That function asks every kind of device, and writes down the whole stack for those that are not in use, in case they
    will be, which a step of a small batch notices.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
