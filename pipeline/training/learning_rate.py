"""Learning rate schedules, as factors of the configured rates.

Sources: of the one-cycle form Smith and Topin 2018, "Super-Convergence", with cosine annealing after a linear warm-up;
of the cosine form Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
"""

import math

from pipeline.training.train_config import TrainConfig

START = 0.04
"""Where the warm-up starts, as a share of the full rate."""


def rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """The factor for step `step` (from 0) of `total`."""
    done = step / max(total, 1)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return config.schedule_drop ** sum(done >= milestone for milestone in config.schedule_milestones)
    if config.schedule == "exponential":
        return config.schedule_final ** min(done, 1.0)
    if config.schedule == "cosine":
        falling = 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        return config.schedule_final + (1.0 - config.schedule_final) * falling
    if done < config.warmup:
        return START + (1.0 - START) * done / config.warmup
    falling = (done - config.warmup) / (1.0 - config.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(falling, 1.0)))
