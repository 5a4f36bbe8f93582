"""A build proves that its training rows, sent as requests, are encoded as the rows were."""

from pathlib import Path
from typing import Any

import pytest

from contract.errors import DataError
from features.online.raw_requests import load_requests
from features.online.request_encoder import RequestEncoder
from tests.features.online.test_request_kinds import IDS, built

DATA: dict[str, Any] = {
    "features": [*IDS, {"name": "country"}, {"name": "band", "kind": "dense"}, {"name": "day"}],
    "crosses": [{"name": "cross", "of": ["country", "brand"]}],
    "aggregates": [{"by": ["user", "brand"], "of": ["click"], "stats": ["mean"]}],
    "histories": [{"name": "recent", "by": "user", "of": "item", "last": 5, "elapsed": "ago"}],
}


def test_the_requests_stay_beside_the_features(tmp_path: Path) -> None:
    built(tmp_path, **DATA)
    requests = load_requests(tmp_path / "features")
    assert len(requests) == 64
    assert set(requests[0].context) == {"page", "band", "day"}
    assert isinstance(requests[0].context["day"], str)
    assert requests[0].user_features["country"] in {"DE", "FR"}


def test_a_feature_that_requests_encode_otherwise_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RequestEncoder, "_fill_crosses", lambda *_: None)
    with pytest.raises(DataError, match="feature 'cross': the training row of user"):
        built(tmp_path, **DATA)
