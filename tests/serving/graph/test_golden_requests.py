"""A version whose graph answers otherwise than at export is not opened, and so not served."""

from pathlib import Path

import pytest

from contract.errors import PredictionError
from serving.graph.served_model import RankingModel
from serving.registry.registry import Registry
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema, publish_tiny, write_graph

FACTS = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"], "git_revision": "abc"}


def publish_other_graph(store: Path, work: Path) -> Path:
    """A bundle with the golden answers of one graph and the weights of another."""
    files = make_files(work)
    write_graph(files["model.onnx"], make_schema(), seed=1)
    return publish(store, "tiny", files, FACTS)


def test_a_graph_that_answers_otherwise_is_not_opened(tmp_path: Path) -> None:
    bundle = publish_other_graph(tmp_path / "store", tmp_path / "work")
    with pytest.raises(PredictionError, match="golden request first"):
        RankingModel.open(bundle)


def test_a_server_goes_on_with_the_version_before(tmp_path: Path) -> None:
    publish_tiny(tmp_path / "store", tmp_path / "good")
    registry = Registry(tmp_path / "store")
    publish_other_graph(tmp_path / "store", tmp_path / "bad")
    registry.refresh()
    assert registry.get("tiny").version == 1
    assert registry.refused() == ["tiny"]
