"""A bundle's raw golden requests go through its request encoder before it may be served."""

from pathlib import Path

from contract.errors import IntegrityError
from contract.graph_names import GOLDEN_FILE, PREPARED_GOLDEN_FILE, RAW_GOLDEN_FILE
from features.online.request_encoder import RankRequest, RequestEncoder
from serving.graph.prepared_graph import PreparedEngine
from serving.store import golden


def check_encoder(path: Path, encoder: RequestEncoder) -> None:
    """Encode the raw golden requests, and compare with what training made of them.

    Raises:
        IntegrityError: a request has no case to compare with.
        PredictionError: one is encoded otherwise than in training.
    """
    cases = golden.read(path / GOLDEN_FILE)
    for name, fields in golden.read_raw(path / RAW_GOLDEN_FILE).items():
        if name not in cases:
            message = f"the raw golden request {name} has no case in {GOLDEN_FILE} to compare with"
            raise IntegrityError(message)
        golden.require_same_inputs(name, cases[name].inputs, encoder.encode(RankRequest(**fields)).inputs)


def check_prepared(path: Path, prepared: PreparedEngine | None, encoder: RequestEncoder) -> None:
    """Send raw golden requests through look-ups, prepared rows and the graph that takes their sum, if there is one.

    Raises:
        PredictionError: one is answered otherwise than at export.
    """
    if prepared is None or prepared.shares is None:
        return
    raw, lean = golden.read_raw(path / RAW_GOLDEN_FILE), prepared.encoder(encoder)
    for name, case in golden.read(path / PREPARED_GOLDEN_FILE).items():
        prepared.check_raw(name, case, lean.encode(RankRequest(**raw[name])))
