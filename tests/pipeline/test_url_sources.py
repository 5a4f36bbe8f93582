"""The features step with its log behind a URL: built once, reused, and built again when the log grows."""

from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from pipeline.flow.steps import build_features
from pipeline.project.project_config import read_config
from tests.pipeline.tiny_project import write_project


def test_a_log_behind_a_url_is_built_once_and_again_when_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_project(tmp_path)
    memory = fsspec.filesystem("memory")
    events = pq.read_table(tmp_path / "raw" / "events.parquet")
    for name, begin in (("a", 0), ("b", 1000)):
        with memory.open(f"/shop/{name}.parquet", "wb") as file:
            pq.write_table(events.slice(begin, 900), file)
    monkeypatch.chdir(tmp_path)
    settings = ["data.events.path=memory://shop", "data.events.partition_rows=300"]
    config = read_config(path, settings)
    first = build_features(config)
    assert build_features(config).stamp == first.stamp
    assert "features: reused" in capfd.readouterr().err
    with memory.open("/shop/c.parquet", "wb") as file:
        pq.write_table(events.slice(1900), file)
    grown = build_features(config)
    assert grown.result["days"]["reused"] > grown.result["days"]["built"] > 0
    told = f"{grown.result['days']['reused']} days reused, {grown.result['days']['built']} built"
    assert told in capfd.readouterr().err
    memory.rm("/shop", recursive=True)
