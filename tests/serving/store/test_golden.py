"""Golden requests that are raw: they are encoded when a bundle is opened, and must give what training had."""

from dataclasses import replace
from pathlib import Path

import pytest

from contract.errors import IntegrityError, PredictionError
from contract.graph_names import GOLDEN_FILE, RAW_GOLDEN_FILE
from serving.graph.engine import Engine
from serving.graph.served_model import RankingModel
from serving.store import golden
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema

FACTS = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"]}


def test_a_bundle_whose_requests_are_encoded_as_in_training_opens(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work")
    assert RAW_GOLDEN_FILE in files
    assert RankingModel.open(publish(tmp_path / "store", "tiny", files, FACTS)).version == 1


def test_a_request_that_is_encoded_otherwise_than_in_training_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work")
    cases = golden.read(files[GOLDEN_FILE])
    inputs = cases["raw"].inputs
    ids = inputs.candidate.ids.copy()
    ids[1, 0] += 1
    other = replace(inputs, candidate=replace(inputs.candidate, ids=ids))
    cases["raw"] = golden.GoldenCase(other, Engine(tmp_path / "work").predict(other))
    golden.write(files[GOLDEN_FILE], cases)
    with pytest.raises(PredictionError, match="raw is encoded otherwise than in training: candidate_ids"):
        RankingModel.open(publish(tmp_path / "store", "tiny", files, FACTS))


@pytest.mark.parametrize("content", ["[]x", '{"raw": 1}', '{"other": {}}'])
def test_a_file_that_holds_no_raw_requests_is_refused(tmp_path: Path, content: str) -> None:
    files = make_files(tmp_path / "work")
    files[RAW_GOLDEN_FILE].write_text(content)
    with pytest.raises(IntegrityError):
        RankingModel.open(publish(tmp_path / "store", "tiny", files, FACTS))
