"""Learning rate schedules, as factors of the configured rates.

Source of the one-cycle form: Smith and Topin 2018, "Super-Convergence", with cosine annealing after a linear warm-up.
"""

import math

from pipeline.training.train_config import TrainConfig

START = 0.04
"""Where the warm-up starts, as a share of the full rate."""


def rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """The factor for step `step` (from 0) of `total`."""
    if config.schedule == "constant":
        return 1.0
    done = step / max(total, 1)
    if done < config.warmup:
        return START + (1.0 - START) * done / config.warmup
    falling = (done - config.warmup) / (1.0 - config.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(falling, 1.0)))
