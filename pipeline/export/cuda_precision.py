"""Which precisions of CUDA a bundle may be served at: judged as smaller numbers are, by the validation rows.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable
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


EXACT: dict[str, Any] = {"fp32": {"passed": True, "tolerance": _FLOOR, "reason": ""}}
"""What every card computes exactly, and so needs no rows to be judged by."""


def judge_tf32(graph: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """Whether a graph keeps its quality under TF32, and how far its answers then lie from its float32 ones.

    Returns:
        By precision what `serving.graph.cuda_tolerance.PrecisionFacts` holds.
    """
    rounded = graph.with_name(f".{graph.name}-tf32")
    try:
        return EXACT | _judged("tf32", "TF32", lambda: write_tf32(graph, rounded), (graph, rounded), schema, valid)
    finally:
        rounded.unlink(missing_ok=True)


def judge_variant(precision: str, graph: Path, variant: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """The same for a graph and its variant, which the CPU computes from the same rounded values as a card.

    Returns:
        As `judge_tf32`, of that precision alone.
    """
    what = {"fp16": "half precision", "int8": "weights of 8 bits", "int4": "weights of 4 bits"}[precision]
    return _judged(precision, what, lambda: None, (graph, variant), schema, valid)


def _judged(
    name: str, what: str, write: Callable[[], object], graphs: tuple[Path, Path], schema: Schema, valid: Path
) -> dict[str, Any]:
    try:
        write()
        whole, changed = (answers_of(each, schema, valid, ROWS) for each in graphs)
    except ExportError:
        # Without rows nothing else is promised than what every card computes exactly.
        return {}
    move = float((np.abs(changed.scores - whole.scores) / (1 + np.abs(whole.scores))).max())
    facts: dict[str, Any] = {"passed": True, "tolerance": _FLOOR + _MARGIN * move, "reason": ""}
    try:
        refuse_losses(what, compared(schema, whole, changed))
    except ExportError as error:
        facts |= {"passed": False, "reason": str(error)}
    if move > LARGEST_MOVE:
        reason = f"{what} moves an answer by {move:.2g}, more than the {LARGEST_MOVE} by which a server tells defects"
        facts |= {"passed": False, "reason": reason}
    return {name: facts}
