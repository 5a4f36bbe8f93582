"""Expert health as training writes it down: numbers by task, warnings, and a picture of tasks by experts.

Shape legend: T tasks, E experts, H and W pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import JsonValue

from models.diagnostics.diagnosis import dead_experts, diagnose
from models.diagnostics.expert_health import ExpertHealth

_CELL, _EDGE, _GAP, _TEXT = 30, 1, 6, 12
_DARK = 384
"""Below this sum of red, green and blue a cell is written on in white."""
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


def picture(values: Sequence[Sequence[float]], tasks: Sequence[str]) -> NDArray[np.uint8]:
    """A heat map of values in [0, 1], one row per task and one column per expert, with names: RGB [3, H, W]."""
    shade_TE = np.clip(np.asarray(values, dtype=np.float64), 0.0, 1.0) * (len(_COLOURS) - 1)
    low_TE = np.minimum(shade_TE.astype(np.int64), len(_COLOURS) - 2)
    part_TE1 = (shade_TE - low_TE)[..., None]
    colour_TE3 = (_COLOURS[low_TE] * (1 - part_TE1) + _COLOURS[low_TE + 1] * part_TE1).round().astype(np.uint8)
    rows, experts = shade_TE.shape
    font = ImageFont.load_default(_TEXT)
    left = _GAP + max(round(font.getlength(task)) for task in tasks) + _GAP
    image = Image.new("RGB", (left + experts * _CELL, (rows + 1) * _CELL), "white")
    draw = ImageDraw.Draw(image)
    for expert in range(experts):
        x = left + expert * _CELL
        draw.text((x + _CELL / 2, _CELL / 2), str(expert), "black", font, anchor="mm")
        for row in range(rows):
            y = (row + 1) * _CELL
            shade = tuple(colour_TE3[row, expert].tolist())
            draw.rectangle((x + _EDGE, y + _EDGE, x + _CELL - 1, y + _CELL - 1), fill=shade)
            ink = "white" if sum(shade) < _DARK else "black"
            text = f"{values[row][expert]:.2f}".removeprefix("0")
            draw.text((x + _CELL / 2, y + _CELL / 2), text, ink, font, anchor="mm")
    for row, task in enumerate(tasks):
        draw.text((_GAP, (row + 1.5) * _CELL), task, "black", font, anchor="lm")
    return np.asarray(image).transpose(2, 0, 1)
