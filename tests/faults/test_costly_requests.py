"""Requests made to cost the server its time are refused, by the field at fault, before they have cost much."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client.client_request import build_request
from tests.faults.conftest import FRONTS, LONG, Front, Tell
from tests.faults.load import RANK, Served, serving
from tests.patience import PATIENCE

pytestmark = pytest.mark.skipif(not LONG, reason="the short forms are in tests/serving/api/test_bounds.py")
LONG_TEXT = "x" * 3_900_000
"""Just below the limit of a message; a few kilobytes when compressed."""
COSTLY = {
    "context.tab": build_request(user=1, items=[100], context={"tab": LONG_TEXT}),
    "user": build_request(user=LONG_TEXT, items=[100]),
    "item_features.words": build_request(user=1, items=[100], item_features={"words": [["w" * 1025] * 3800]}),
    "user_features": build_request(user=1, items=[100], user_features={f"f{number}": 1 for number in range(100_000)}),
}
"""By the field that is at fault."""
MOST_SECONDS = 0.25
"""Of a core, for one of them. Reading 4 MB costs hundredths, hashing a text of that size more than half a second."""
CARELESS = """
import runpy, sys
from features.online import request_values
request_values.ID_BYTES = 1 << 30
sys.argv[0] = "serving"
runpy.run_module("serving", run_name="__main__")
"""


def told(channel: Any, field: str) -> str:
    """What the caller of a costly request is told."""
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(RANK)(COSTLY[field].SerializeToString(), timeout=PATIENCE)
    error: Any = refused.value
    return f"{error.code().name}: {error.details()}"


def cost(served: Served, field: str, calls: int) -> float:
    """Seconds of a core that one such request costs the server's process."""
    channel: Any
    with grpc.insecure_channel(f"127.0.0.1:{served.port}", compression=grpc.Compression.Gzip) as channel:
        told(channel, field)
        before = sum(served.process.cpu_times()[:2])
        for _ in range(calls):
            told(channel, field)
        return (sum(served.process.cpu_times()[:2]) - before) / calls


@pytest.mark.parametrize("front", FRONTS)
def test_costly_requests_are_refused_by_field_at_little_cost(store: Path, front: Front, record_property: Tell) -> None:
    with serving(store, "--front", front) as served:
        channel: Any
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            for field in COSTLY:
                answer = told(channel, field)
                assert answer.startswith(f"INVALID_ARGUMENT: {field}")
                assert len(answer) < 500
        costs = {field: cost(served, field, 20) for field in COSTLY}
    record_property("seconds of a core, by field", costs)
    assert max(costs.values()) < MOST_SECONDS, costs


def test_control_a_text_without_a_limit_costs_a_server_seconds(store: Path) -> None:
    with serving(store, program=("-c", CARELESS)) as served:
        channel: Any
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            before = sum(served.process.cpu_times()[:2])
            body = COSTLY["context.tab"].SerializeToString()
            channel.unary_unary(RANK)(body, timeout=PATIENCE)
            assert sum(served.process.cpu_times()[:2]) - before > MOST_SECONDS
