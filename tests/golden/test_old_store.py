"""A store that an earlier version made still opens, verifies and gives the answers that it gave then."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.graph_names import PACKED_FILE
from pipeline.cli.main import main
from serving.graph.served_model import RankingModel
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.store import local_store
from serving.store.bundle import load, publish

HERE = Path(__file__).resolve().parent
RECORDED = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def old_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(HERE / "store.tar.xz") as archive:
        # Debian 12's Python 3.11.2 has no filters yet; the archive is our own.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)  # noqa: S202 - our own archive
    return folder / "store"


@pytest.fixture(scope="module", params=[1, 2])
def served(old_store: Path, request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    local_store.point(old_store, "shop", request.param)
    with start(ServerSettings(store=str(old_store), port=0)) as server:
        yield request.param, f"127.0.0.1:{server.port}"


def test_every_old_bundle_verifies(old_store: Path) -> None:
    assert local_store.versions(old_store, "shop") == [1, 2]
    for version in (1, 2):
        assert load(old_store / "shop" / str(version)).manifest.version == version


def test_an_old_bundle_passes_its_own_golden_requests_also_in_its_batched_graph(old_store: Path) -> None:
    bundle = load(old_store / "shop" / "1")
    assert PACKED_FILE in bundle.manifest.files
    RankingModel.open(bundle.path)


def test_the_server_gives_the_old_answers(served: tuple[int, str], capsys: pytest.CaptureFixture[str]) -> None:
    version, target = served
    for record in RECORDED:
        if record["answer"]["version"] == version:
            assert main(["rank", *record["request"], "--target", target, "--json"]) == 0
            same(json.loads(capsys.readouterr().out), record["answer"])


def same(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Equal but for the last digits, which another build of onnxruntime may round otherwise."""
    for name in ("model", "version", "ranked", "unknown_user", "unknown_items"):
        assert new[name] == old[name]
    np.testing.assert_allclose(new["scores"], old["scores"], rtol=1e-5)
    for task, values in old["predictions"].items():
        np.testing.assert_allclose(new["predictions"][task], values, rtol=1e-5)


def test_both_versions_and_their_requests_were_recorded() -> None:
    assert [record["answer"]["version"] for record in RECORDED] == [1] * 4 + [2] * 4


def test_a_new_version_is_published_beside_the_old_ones(old_store: Path) -> None:
    old = load(old_store / "shop" / "2")
    facts = {"schema_fingerprint": old.manifest.schema_fingerprint, "tasks": old.manifest.tasks}
    files = {name: old.path / name for name in old.manifest.files}
    assert publish(old_store, "shop", files, facts).name == "3"
