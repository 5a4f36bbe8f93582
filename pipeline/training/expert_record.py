"""Expert health as training writes it down: numbers by task, warnings, and a picture of tasks by experts.

Shape legend: T tasks, E experts, H and W pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from models.diagnostics.diagnosis import dead_experts, diagnose
from models.diagnostics.expert_health import ExpertHealth

_CELL = 24
_EDGE = 1
# From pale to dark, evenly spaced: the same blue as the report's.
_COLOURS = np.array([[247, 250, 253], [158, 196, 228], [52, 116, 178], [10, 38, 84]], dtype=np.float64)


def record(health: ExpertHealth, tasks: Sequence[str]) -> dict[str, JsonValue]:
    """What an epoch's record says about its experts; the numbers of ``experts`` become TensorBoard scalars."""
    by_task: dict[str, JsonValue] = {"union_over_n": health.union, "dead": len(dead_experts(health))}
    for task, selected, effective, distance in zip(
        tasks, health.selected, health.effective, health.distance, strict=True
    ):
        figures: dict[str, JsonValue] = {"selected": selected, "effective": effective}
        by_task[task] = figures if distance is None else {**figures, "selector_distance": distance}
    return {
        "experts": by_task,
        "expert_weight": {task: list(row) for task, row in zip(tasks, health.weight, strict=True)},
        "expert_share": {task: list(row) for task, row in zip(tasks, health.share, strict=True)},
        "expert_zeros": list(health.zeros),
        "expert_scale": list(health.scale),
        "expert_warnings": list(diagnose(health, tasks)),
    }


def picture(values: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """A heat map of values in [0, 1], a row of cells a task and a column an expert: RGB [3, H, W]."""
    shade_TE = np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0) * (len(_COLOURS) - 1)
    low_TE = np.minimum(shade_TE.astype(np.int64), len(_COLOURS) - 2)
    part_TE1 = (shade_TE - low_TE)[..., None]
    colour_TE3 = _COLOURS[low_TE] * (1 - part_TE1) + _COLOURS[low_TE + 1] * part_TE1
    image_HW3 = np.kron(colour_TE3, np.ones((_CELL, _CELL, 1)))
    for axis in (0, 1):
        edges = np.arange(image_HW3.shape[axis]) % _CELL < _EDGE
        image_HW3[edges if axis == 0 else (slice(None), edges)] = 255.0
    return image_HW3.transpose(2, 0, 1).round().astype(np.uint8)
