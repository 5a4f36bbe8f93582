"""A store behind a URL: downloaded beside, verified, then loaded; whatever goes wrong, the last good one serves."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError
from serving.grpc_server.server_settings import ServerSettings
from serving.registry.registry import Registry
from serving.store.model_source import KEPT, Directory, Remote, open_source
from tests.tiny_bundle import publish_tiny

URL = "memory://bucket/store"


@pytest.fixture
def remote(store: Path) -> Iterator[Any]:
    """The tiny store, uploaded; the filesystem itself."""
    files = fsspec.filesystem("memory")
    files.put(str(store / "tiny"), "/bucket/store/tiny", recursive=True)
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def upload(files: Any, version: Path, *, point: bool = True) -> None:
    files.put(str(version), f"/bucket/store/tiny/{version.name}", recursive=True)
    if point:
        files.pipe("/bucket/store/tiny/current", f"{version.name}\n".encode())


@pytest.mark.usefixtures("remote")
def test_a_url_serves_as_a_directory_does(store: Path, tmp_path: Path) -> None:
    near, far = open_source(store), open_source(URL, tmp_path / "cache")
    assert isinstance(near, Directory)
    assert isinstance(far, Remote)
    assert far.models() == near.models() == ["tiny"]
    assert far.versions("tiny") == near.versions("tiny") == [1]
    assert far.current("tiny") == near.current("tiny") == 1
    assert Registry(far).get().bundle.manifest == Registry(near).get().bundle.manifest
    with pytest.raises(ModelNotFoundError):
        far.current("absent")
    with pytest.raises(ModelNotFoundError):
        far.version_path("tiny", 7)


def test_a_new_version_is_followed_and_old_ones_leave_the_cache(remote: Any, store: Path, tmp_path: Path) -> None:
    registry = Registry(open_source(URL, tmp_path / "cache"))
    for seed in range(1, KEPT + 3):
        upload(remote, publish_tiny(store, tmp_path / f"work{seed}", seed=seed))
        assert registry.refresh()
        assert registry.get().version == seed + 1
    kept = sorted(path.name for path in (tmp_path / "cache" / "tiny").iterdir() if path.is_dir())
    assert len(kept) == KEPT
    assert str(KEPT + 3) in kept


@pytest.mark.parametrize("damage", ["bit", "missing", "manifest", "escape"])
def test_what_does_not_verify_never_enters_the_cache(remote: Any, store: Path, tmp_path: Path, damage: str) -> None:
    registry = Registry(open_source(URL, tmp_path / "cache"))
    second = publish_tiny(store, tmp_path / "two", seed=1)
    if damage == "bit":
        content = bytearray((second / "model.onnx").read_bytes())
        content[100] ^= 1
        (second / "model.onnx").write_bytes(content)
    elif damage == "missing":
        (second / "golden.npz").unlink()
    else:
        manifest = json.loads((second / "manifest.json").read_text())
        if damage == "escape":
            manifest["files"]["../../evil"] = {"sha256": "0" * 64, "size": 1}
        manifest["about"] = {"altered": True}
        (second / "manifest.json").write_text(json.dumps(manifest))
    upload(remote, second)
    assert not registry.refresh()
    assert registry.get().version == 1
    assert registry.refused() == ["tiny"]
    assert sorted(path.name for path in (tmp_path / "cache" / "tiny").iterdir()) == [".lock", "1"]
    with pytest.raises(IntegrityError):
        open_source(URL, tmp_path / "other").version_path("tiny", 2)


def test_a_store_that_is_away_changes_nothing_and_a_broken_version_is_not_fetched_again(
    remote: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(open_source(URL, tmp_path / "cache"))
    second = publish_tiny(store, tmp_path / "two", seed=1)
    (second / "model.onnx").write_bytes(b"broken")
    upload(remote, second)
    fetched: list[str] = []
    fetch = type(remote).get_file

    def counted(self: Any, name: str, *rest: Any, **named: Any) -> Any:
        fetched.append(name)
        return fetch(self, name, *rest, **named)

    monkeypatch.setattr(type(remote), "get_file", counted)
    for _ in range(3):
        assert not registry.refresh()
    assert len([name for name in fetched if name.endswith("model.onnx")]) == 1
    remote.store.clear()
    assert not registry.refresh()
    assert registry.get().version == 1


def test_a_protocol_that_nobody_speaks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="carrier"):
        open_source("carrier-pigeon://loft", tmp_path)


def test_the_setting_keeps_urls_and_turns_text_into_paths(tmp_path: Path) -> None:
    assert ServerSettings.read({"store": URL}, {}).store == URL
    assert ServerSettings.read({"store": str(tmp_path)}, {}).store == tmp_path
    shutil.rmtree(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no model store"):
        Registry(f"file://{tmp_path}")
