"""Versions shipped as deltas: what a server puts together is the whole version, or is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest

from contract.errors import ConfigError, IntegrityError
from serving.registry.registry import Registry
from serving.store.bundle import load
from serving.store.file_delta import RowSpan
from serving.store.model_source import open_source
from serving.store.remote_store import MOST_DELTAS, RemoteStore
from serving.store.version_delta import DELTA_FILE
from tests.serving.store.test_remote_store import URL, files
from tests.tiny_bundle import publish_tiny

__all__ = ["files"]
FOLDER = "/mirror/store/tiny"
LAYERS = 1
"""A square matrix of a megabyte that two seeds make differently, beside what they share."""


@pytest.fixture
def two(store: Path, tmp_path: Path, files: Any) -> Path:  # noqa: ARG001 a fixture of another file
    """A local store whose version 2 differs in a few bytes of its graph and in its number; version 1 is pushed."""
    publish_tiny(store, tmp_path / "two", seed=1)
    RemoteStore(URL).push(store, "tiny", 1)
    return store


def whole_graph(path: Path) -> dict[str, list[RowSpan]]:
    """The graph's file in words, so that what two graphs share is found."""
    return {"model.onnx": [RowSpan(0, (path / "model.onnx").stat().st_size // 8, 8)]}


def test_a_server_makes_the_very_files_of_the_whole_version(two: Path, tmp_path: Path) -> None:
    shipment = RemoteStore(URL).push_delta(two, "tiny", 2, spans_of=whole_graph)
    far = open_source(URL, tmp_path / "cache")
    made = load(far.version_path("tiny", 2))
    whole = load(two / "tiny" / "2")
    assert made.manifest == whole.manifest
    for name in whole.manifest.files:
        assert (made.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert shipment.base == 1
    assert 0 < shipment.shipped < shipment.whole / 2
    # The empty cache got the base first.
    assert (tmp_path / "cache" / "tiny" / "1").is_dir()


def test_a_directory_to_which_deltas_are_shipped_serves_as_a_url_does(two: Path, tmp_path: Path) -> None:
    mirror = RemoteStore(f"file://{tmp_path}/mirror")
    mirror.push(two, "tiny", 1)
    registry = Registry(open_source(tmp_path / "mirror", tmp_path / "cache"))
    mirror.push_delta(two, "tiny", 2)
    assert registry.refresh()
    assert registry.get().version == 2
    assert registry.get().bundle.manifest == load(two / "tiny" / "2").manifest
    near = open_source(f"file://{tmp_path}/mirror", tmp_path / "cache")
    assert near.version_path("tiny", 1) == tmp_path / "mirror" / "tiny" / "1"
    assert near.version_path("tiny", 2) == tmp_path / "cache" / "tiny" / "2"


def test_a_server_swaps_to_a_delta_and_back(two: Path, tmp_path: Path) -> None:
    registry = Registry(open_source(URL, tmp_path / "cache"))
    mirror = RemoteStore(URL)
    mirror.push_delta(two, "tiny", 2)
    assert registry.refresh()
    assert registry.get().version == 2
    mirror.point("tiny", 1)
    assert registry.refresh()
    assert registry.get().version == 1


def damage(files: Any, name: str) -> None:
    path = f"{FOLDER}/2/{name}"
    content = bytearray(files.cat_file(path))
    content[len(content) // 2] ^= 1
    files.pipe_file(path, bytes(content))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (DELTA_FILE, "delta.json"),
        ("model.onnx.delta", "the delta of model.onnx has the sha256 .* promised"),
    ],
)
def test_a_damaged_delta_is_refused_and_the_version_before_serves_on(
    two: Path,
    tmp_path: Path,
    files: Any,
    name: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Registry(open_source(URL, tmp_path / "cache"))
    RemoteStore(URL).push_delta(two, "tiny", 2, spans_of=whole_graph)
    damage(files, name)
    with caplog.at_level(logging.ERROR):
        assert not registry.refresh()
    assert registry.get().version == 1
    with pytest.raises(IntegrityError, match=message):
        open_source(URL, tmp_path / "other").version_path("tiny", 2)
    assert "version 1 goes on" in caplog.text


def test_a_base_that_was_altered_in_the_cache_is_refused(two: Path, tmp_path: Path) -> None:
    far = open_source(URL, tmp_path / "cache")
    base = far.version_path("tiny", 1) / "model.onnx"
    content = bytearray(base.read_bytes())
    content[-1] ^= 1
    base.write_bytes(bytes(content))
    RemoteStore(URL).push_delta(two, "tiny", 2, spans_of=whole_graph)
    with pytest.raises(IntegrityError, match=r"the base of model.onnx has the sha256 .* promised"):
        far.version_path("tiny", 2)


def test_another_base_of_the_same_number_is_refused_by_both_sides(two: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    publish_tiny(other, tmp_path / "three", seed=2)
    publish_tiny(other, tmp_path / "four", seed=3)
    with pytest.raises(ConfigError, match=r"version 1 of tiny in .* is another one than in"):
        RemoteStore(URL).push_delta(other, "tiny", 2)
    RemoteStore(URL).push_delta(two, "tiny", 2)
    # A cache that another store filled.
    cache = tmp_path / "cache"
    (cache / "tiny").mkdir(parents=True)
    (other / "tiny" / "1").rename(cache / "tiny" / "1")
    with pytest.raises(IntegrityError, match=r"delta against version 1 with the seal .* here version 1 of tiny has"):
        open_source(URL, cache).version_path("tiny", 2)


def test_a_base_stays_while_a_delta_stands_on_it(two: Path) -> None:
    mirror = RemoteStore(URL)
    mirror.push_delta(two, "tiny", 2)
    with pytest.raises(ConfigError, match="version 2 of tiny is a delta against version 1"):
        mirror.remove("tiny", 1)


def test_after_so_many_deltas_a_version_goes_whole(two: Path, tmp_path: Path) -> None:
    mirror = RemoteStore(URL)
    for version in range(2, MOST_DELTAS + 3):
        if version > 2:
            publish_tiny(two, tmp_path / str(version), seed=version)
        shipment = mirror.push_delta(two, "tiny", version)
        assert (shipment.base is None) == (version == MOST_DELTAS + 2)
    last = open_source(URL, tmp_path / "cache").version_path("tiny", MOST_DELTAS + 1)
    assert load(last).manifest == load(two / "tiny" / str(MOST_DELTAS + 1)).manifest


@pytest.mark.usefixtures("files")
def test_the_first_version_goes_whole(store: Path) -> None:
    shipment = RemoteStore(URL).push_delta(store, "tiny")
    assert "whole (the first version there)" in str(shipment)


def test_a_base_that_is_no_earlier_version_is_refused(two: Path) -> None:
    mirror = RemoteStore(URL)
    mirror.push(two, "tiny", 2)
    mirror.remove("tiny", 1)
    with pytest.raises(ConfigError, match="name an earlier one"):
        mirror.push_delta(two, "tiny", 1, 2)
