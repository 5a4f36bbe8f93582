"""A night that goes on from the last one and ships what changed: servers answer as after a full publication."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from features.online.request_encoder import RankRequest
from pipeline.cli.main import main
from pipeline.flow import steps
from pipeline.flow.steps import Run
from pipeline.project.project_config import read_config
from serving.registry.registry import Registry
from serving.store.bundle import load
from serving.store.model_source import open_source
from tests.pipeline.flow.test_warm_nights import WARM
from tests.pipeline.tiny_project import leave_late_events_out, write_project

URL = "memory://nights/store"


@pytest.fixture
def far() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]


def train_night(project: Path) -> Run:
    config = read_config(project, [*WARM, f"mirror={URL}", "model.embedding_dim=64"])
    steps.build_features(config)
    return steps.train_model(config)


@pytest.mark.slow
@pytest.mark.usefixtures("far")
def test_a_server_answers_after_a_delta_as_after_a_full_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    project = write_project(tmp_path)
    log, _early = leave_late_events_out(project)
    first = train_night(project)
    assert main(["publish", str(first.directory), "--delta"]) == 0
    assert "version 1 whole (the first version there)" in capsys.readouterr().err
    registry = Registry(open_source(URL, tmp_path / "cache"))
    pq.write_table(log, tmp_path / "raw" / "events.parquet")
    second = train_night(project)
    assert second.directory != first.directory
    assert main(["publish", str(second.directory), "--delta", "1"]) == 0
    assert "version 2 as a delta against version 1" in capsys.readouterr().err
    assert registry.refresh()
    served = registry.get()
    store = tmp_path / "runs" / "tiny" / "store"
    assert served.bundle.manifest == load(store / "tiny" / "2").manifest
    whole = Registry(store).get()
    for user in range(1, 41):
        request = RankRequest(user, list(range(1, 31)), {})
        mine, theirs = served.rank(request), whole.rank(request)
        for task, values in mine.predictions.items():
            assert values.tobytes() == theirs.predictions[task].tobytes()
    assert main(["point", URL, "tiny", "1"]) == 0
    assert registry.refresh()
    assert registry.get().version == 1
    # A replica that starts now, with nothing in its cache, gets the base and the delta.
    shutil.rmtree(tmp_path / "cache")
    assert main(["point", URL, "tiny", "2"]) == 0
    assert Registry(open_source(URL, tmp_path / "cache")).get().version == 2


def test_a_delta_without_a_mirror_is_refused_before_anything_is_published(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    run = Run(read_config(project), tmp_path / "run")
    for folder in (run.export_dir, run.evaluation_dir):
        folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match="ships to the project's mirror, which it does not name"):
        steps.publish_model(run, delta=True)
