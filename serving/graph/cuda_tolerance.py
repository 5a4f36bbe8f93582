"""How far a bundle's answers may lie from those of its export: by the precision of CUDA, and with int8 layers.

onnxruntime's CUDA provider multiplies in TF32 (10 bits of mantissa) unless it is told not to. A bundle says for which
precisions its quality was measured, and how far answers moved (`models.export.cuda_precision`).
"""

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from contract.errors import ConfigError, IntegrityError
from contract.graph_names import CUDA_PRECISIONS, GOLDEN_TOLERANCE, QUANTISED
from contract.settings import Settings
from serving.store.golden import TOLERANCE

CudaPrecision = Literal["fp32", "tf32", "fp16", "int8", "int4"]
INT8_TOLERANCE = 0.05
"""Where layers take bytes and the graph does not say how far its golden answers lie: prepared rows enter as float32
what the general graph rounds to 256 steps, and float32 sums in another processor's order can round to the next step."""


class PrecisionFacts(Settings):
    """What the export found out about a precision."""

    passed: bool
    tolerance: float = Field(default=TOLERANCE, gt=0)
    """Largest accepted |difference| of a golden answer, relative to 1 + |answer|."""
    reason: str = ""


_FACTS = TypeAdapter(dict[str, PrecisionFacts])


def golden_tolerance(properties: Mapping[str, str], precision: CudaPrecision, owner: str) -> float:
    """How far golden answers may be off at a precision.

    Args:
        properties: The graph's own.
        precision: What CUDA is to multiply in.
        owner: The graph, for messages.

    Raises:
        ConfigError: the bundle did not pass at this precision, or does not say.
        IntegrityError: the property is damaged.
    """
    if precision == "fp32":
        return _stated(properties, owner)
    try:
        facts = _FACTS.validate_python(json.loads(properties.get(CUDA_PRECISIONS, "{}")))
    except (ValueError, ValidationError) as error:
        message = f"{owner}: the property {CUDA_PRECISIONS} is wrong ({error}); export the model again"
        raise IntegrityError(message) from error
    measured = facts.get(precision)
    if measured is None or not measured.passed:
        why = "its export did not measure it" if measured is None else measured.reason
        message = (
            f"{owner} cannot be served at --cuda-precision {precision}: {why}; use --cuda-precision fp32, or export "
            "the model again"
        )
        raise ConfigError(message)
    return measured.tolerance


def _stated(properties: Mapping[str, str], owner: str) -> float:
    """What the export saw of this graph, or what holds for all graphs of its kind."""
    stated = properties.get(GOLDEN_TOLERANCE)
    if stated is None:
        return INT8_TOLERANCE if QUANTISED in properties else TOLERANCE
    try:
        return PrecisionFacts(passed=True, tolerance=float(stated)).tolerance
    except ValueError as error:
        message = f"{owner}: the property {GOLDEN_TOLERANCE} is wrong ({stated!r}); export the model again"
        raise IntegrityError(message) from error
