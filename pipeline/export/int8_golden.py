"""How far int8 graphs' answers to golden requests lie from the float32 ones: each states its own tolerance."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from contract.errors import ExportError
from contract.graph_names import (
    GOLDEN_FILE,
    GOLDEN_TOLERANCE,
    MODEL_FILE,
    PACKED_FILE,
    PREPARED_FILE,
    PREPARED_GOLDEN_FILE,
    RAW_GOLDEN_FILE,
    int8_of,
)
from contract.schema import Schema
from features.online.request_encoder import RankRequest, RequestEncoder
from models.export.onnx_file import annotate
from serving.graph.batched_graph import BatchedEngine
from serving.graph.engine import Engine
from serving.graph.prepared_graph import PreparedEngine
from serving.store import golden

LARGEST_MOVE = 0.05
"""Beyond it a golden request proves nothing, whatever the metrics say."""
_MARGIN = 2.0
"""Another processor's float32 sums round to the next step here and there."""


def state_tolerances(out: Path, schema: Schema, files: Sequence[str]) -> dict[str, float]:
    """Measure how far golden answers move in each int8 graph of `files`, and write what is allowed into the graph.

    Raises:
        ExportError: an answer moves so far that golden requests would prove nothing.
    """
    tolerances = {}
    for name in files:
        moved = max(_moves(out, schema, name), default=0.0)
        if moved > LARGEST_MOVE:
            message = f"int8 experts move a golden answer by {moved:.2g} in {name}; at most {LARGEST_MOVE} is allowed"
            raise ExportError(message)
        tolerances[name] = golden.TOLERANCE + _MARGIN * moved
        annotate(out / name, {GOLDEN_TOLERANCE: str(tolerances[name])})
    return tolerances


def _moves(out: Path, schema: Schema, name: str) -> Iterator[float]:
    cases = golden.read(out / GOLDEN_FILE).values()
    if name == int8_of(MODEL_FILE):
        engine = Engine(out, schema, file=name)
        yield from (golden.distance(case, engine.predict(case.inputs)) for case in cases)
    elif name == int8_of(PACKED_FILE):
        packed = BatchedEngine(out, schema, file=name)
        yield from (golden.distance(case, packed.predict([case.inputs])[0]) for case in cases)
    elif name == int8_of(PREPARED_FILE):
        yield from _prepared_moves(out, PreparedEngine(out, schema, file=name))


def _prepared_moves(out: Path, prepared: PreparedEngine) -> Iterator[float]:
    for case in golden.read(out / GOLDEN_FILE).values():
        if case.item_rows is not None:
            yield golden.distance(case, prepared.predict_case(case))
    if prepared.shares is None:
        return
    raw, encoder = golden.read_raw(out / RAW_GOLDEN_FILE), prepared.encoder(RequestEncoder.open(out))
    for name, case in golden.read(out / PREPARED_GOLDEN_FILE).items():
        yield golden.distance(case, prepared.predict(encoder.encode(RankRequest(**raw[name]))))
