"""The benchmark of several processes counts answers, not whatever HTTP says."""

import pytest

from benchmarks.serving_processes import require_answered
from contract.errors import PredictionError


def test_what_the_server_counts_must_cover_what_was_seen() -> None:
    require_answered("2 processes", seen=100, answered=150, failed=0)
    with pytest.raises(PredictionError, match="saw 100 calls end, of which the server answered 90"):
        require_answered("2 processes", seen=100, answered=90, failed=0)


def test_no_call_may_have_failed() -> None:
    with pytest.raises(PredictionError, match="and 3 failed"):
        require_answered("2 processes", seen=100, answered=150, failed=3)
