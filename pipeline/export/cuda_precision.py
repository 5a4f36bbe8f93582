"""Which precisions of CUDA a bundle may be served at: judged as smaller numbers are, by the validation rows.

Shape legend: N rows, T tasks.
"""

from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import ExportError
from contract.schema import Schema
from models.export.tf32 import write_tf32
from pipeline.export.post_export import answers_of, compared, refuse_losses

ROWS = 32_768
"""Validation rows to judge by; the two graphs' answers to a row differ little, so few rows tell."""
LARGEST_MOVE = 0.01
"""Beyond it a golden request proves nothing, whatever the metrics say."""
_FLOOR, _MARGIN = 1e-4, 2.0
"""A card adds up in another order than the CPU on which this was measured."""


def judge_tf32(graph: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """Whether a graph keeps its quality under TF32, and how far its answers then lie from its float32 ones.

    Returns:
        By precision what `serving.graph.cuda_tolerance.PrecisionFacts` holds, and the metrics before and after.
    """
    rounded = graph.with_name(f".{graph.name}-tf32")
    exact: dict[str, Any] = {"fp32": {"passed": True, "tolerance": _FLOOR, "reason": ""}}
    try:
        write_tf32(graph, rounded)
        whole, changed = (answers_of(each, schema, valid, ROWS) for each in (graph, rounded))
    except ExportError:
        # Without rows nothing else is promised than what every card computes exactly.
        return exact
    finally:
        rounded.unlink(missing_ok=True)
    move = float((np.abs(changed.scores - whole.scores) / (1 + np.abs(whole.scores))).max())
    facts: dict[str, Any] = {"passed": True, "tolerance": _FLOOR + _MARGIN * move, "reason": ""}
    figures = compared(schema, whole, changed)
    try:
        refuse_losses("TF32", figures)
    except ExportError as error:
        facts |= {"passed": False, "reason": str(error)}
    if move > LARGEST_MOVE:
        reason = f"TF32 moves an answer by {move:.2g}, more than the {LARGEST_MOVE} by which a server can tell defects"
        facts |= {"passed": False, "reason": reason}
    return exact | {"tf32": facts}
