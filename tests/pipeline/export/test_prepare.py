"""Export prepares rows of items, users and pairs in few bytes, says so, and publishes what serves by them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ExportError
from contract.graph_names import PREPARED_FILE, PREPARED_GOLDEN_FILE, SHARES_FOLDER
from features.online.request_encoder import RankRequest
from features.online.share_rows import ShareRows
from pipeline.console import lines_to
from pipeline.export import post_export
from pipeline.flow.steps import Run, build_features, evaluate_model, export_model, publish_model, train_model
from pipeline.project.project_config import ProjectConfig, read_config
from serving.graph.served_model import RankingModel
from serving.store import golden
from tests.pipeline.tiny_project import write_project

# Trains once and exports three times.
pytestmark = pytest.mark.long
MODEL = ["model.bottom=[16]", "model.gate={name: top_k, k: 2}", "train.epochs=1"]


def test_prepared_rows_are_published_and_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_project(tmp_path)
    # So few validation rows hang on their order.
    monkeypatch.setattr(post_export, "AUC_LOSS", 0.1)
    monkeypatch.setattr(post_export, "RMSE_LOSS", 0.1)
    config = read_config(path, [*MODEL, "export.prepare=all", "export.item_rows=fp16", "export.quantize=experts"])
    build_features(config)
    run = train_model(config)
    said: list[str] = []
    with lines_to(said.append):
        exported = export_model(run).result
    told = exported["preparation"]
    assert exported["graphs"]["cpu"]["prepared"] == "prepared.int8.onnx"
    assert set(exported["int8"]["tolerances"]) == {"model.int8.onnx", "prepared.int8.onnx"}
    assert any("prepared rows of " in line and ": 32 bytes an item beside its own " in line for line in said)
    prepared = {name: table for name, table in told["tables"].items() if table["prepared"]}
    assert {"user", "item"} <= set(prepared)
    assert {table["bytes_a_row"] for table in prepared.values()} == {32}
    assert told["judged"]
    evaluate_model(run)
    model = RankingModel.open(publish_model(run).bundle)
    request = RankRequest(1, list(range(1, 31)))
    encoded = model.encode(request)
    assert set(encoded.rows_of) == set(prepared)
    by_rows = model.rank(request).predictions["like"]
    general = model.engine.predict(model.encoder.encode(request).inputs)["like"]
    assert by_rows == pytest.approx(general, abs=exported["int8"]["tolerances"]["prepared.int8.onnx"] + 2e-3)
    assert "raw-looked-up" in golden.read(run.export_dir / PREPARED_GOLDEN_FILE)
    export_model(replace(run, config=read_config(path, [*MODEL, "export.prepare=none"])))
    assert not any((run.export_dir / name).exists() for name in (PREPARED_FILE, PREPARED_GOLDEN_FILE, SHARES_FOLDER))
    refuse_rows_that_cost(run, read_config(path, [*MODEL, "export.prepare=all", "export.item_rows=int8"]), monkeypatch)


def refuse_rows_that_cost(run: Run, config: ProjectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that allows nothing refuses rows that are all wrong."""
    monkeypatch.setattr(post_export, "AUC_LOSS", 0.0)
    monkeypatch.setattr(ShareRows, "whole", lambda rows: -ShareRows.take(rows, np.arange(len(rows.values))))
    with pytest.raises(ExportError, match="int8 rows cost too much on the validation rows"):
        export_model(replace(run, config=config))
