"""The distribution of the validation rows' predictions: from the export, through the manifest, to the metrics."""

import urllib.request
from pathlib import Path

import numpy as np
import pytest

from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.observe.expected_predictions import validation_counts, validation_shares
from serving.store.bundle import load, publish
from tests.tiny_bundle import make_files, make_schema

PREDICTIONS = np.array([[0.0005, 3.0], [0.04, 3.0], [0.04, 9.0], [0.9, 3.0]], np.float32)


def published(tmp_path: Path, predictions: object) -> Path:
    schema = make_schema("like")
    facts = {
        "schema_fingerprint": schema.fingerprint(),
        "tasks": ["like", "rating"],
        "about": {"export": {"predictions": predictions}},
    }
    return publish(tmp_path / "store", "tiny", make_files(tmp_path / "work", seed=0, task="like"), facts)


def test_the_manifest_tells_what_share_of_the_rows_was_predicted_up_to_each_edge(tmp_path: Path) -> None:
    schema = make_schema("like")
    manifest = load(published(tmp_path, validation_counts(PREDICTIONS, schema))).manifest
    shares = validation_shares(manifest, schema)
    assert (shares["like"][0], shares["like"][5], shares["like"][-1]) == (0.25, 0.75, 1.0)
    assert shares["rating"][-1] == 1.0


@pytest.mark.parametrize("predictions", [{}, {"like": {"edges": [0.5], "counts": [1, 1]}}, {"like": 3}, "nothing"])
def test_what_cannot_be_compared_is_left_out(tmp_path: Path, predictions: object) -> None:
    manifest = load(published(tmp_path, predictions)).manifest
    assert validation_shares(manifest, make_schema("like")) == {}


def test_the_metrics_hold_both_distributions_with_the_same_buckets(tmp_path: Path) -> None:
    published(tmp_path, validation_counts(PREDICTIONS, make_schema("like")))
    with start(ServerSettings(store=tmp_path / "store", port=0, metrics_port=0)) as server:
        assert server.metrics is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics.port}/metrics") as answer:
            page = answer.read().decode()
    line = 'moerank_prediction_expected_ratio{le="0.05",model="tiny",task="like",version="1"} 0.75'
    assert line in page.splitlines()
