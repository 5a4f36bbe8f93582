"""New versions replace old ones, and the last good one serves on after any failure."""

import gc
import logging
import shutil
from pathlib import Path

import pytest

from contract.errors import ConfigError, ModelNotFoundError
from features.online.request_encoder import RankRequest
from serving.graph.served_model import RankingModel
from serving.registry.registry import Registry
from serving.store.local_store import point
from serving.store.model_selection import ModelSelection
from tests.tiny_bundle import publish_tiny


def test_a_new_version_is_served_after_a_refresh(store: Path, tmp_path: Path) -> None:
    registry = Registry(store)
    assert not registry.refresh()
    publish_tiny(store, tmp_path / "two", seed=1)
    assert registry.get().version == 1
    assert registry.refresh()
    assert registry.get().version == 2
    point(store, "tiny", 1)
    registry.refresh()
    assert registry.get().version == 1


def test_a_pinned_version_does_not_follow_the_pointer(store: Path, tmp_path: Path) -> None:
    registry = Registry(store, [ModelSelection.parse("tiny@1")])
    publish_tiny(store, tmp_path / "two", seed=1)
    assert not registry.refresh()
    assert registry.get().version == 1


def test_a_model_published_later_is_found(store: Path, tmp_path: Path) -> None:
    registry = Registry(store)
    publish_tiny(store, tmp_path / "other", model="other")
    registry.refresh()
    assert [model.name for model in registry.models()] == ["other", "tiny"]


def test_a_damaged_version_is_refused_once_and_the_last_good_one_serves(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(store)
    second = publish_tiny(store, tmp_path / "two", seed=1)
    content = (second / "model.onnx").read_bytes()
    (second / "model.onnx").write_bytes(content[:-1] + b"\0")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert not registry.refresh()
    assert registry.get().version == 1
    assert len(caplog.records) == 1
    assert "version 1 goes on" in caplog.text


@pytest.mark.parametrize("failure", ["no pointer", "bad pointer", "no version", "no store"])
def test_a_broken_store_changes_nothing(store: Path, failure: str) -> None:
    registry = Registry(store)
    pointer = store / "tiny" / "current"
    if failure == "no pointer":
        pointer.unlink()
    elif failure == "bad pointer":
        pointer.write_text("../../etc\n")
    elif failure == "no version":
        pointer.write_text("9\n")
    else:
        shutil.move(store, store.with_name("away"))
    assert not registry.refresh()
    assert registry.get().version == 1


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="has no model to serve"):
        Registry(tmp_path)


@pytest.mark.parametrize("text", ["", "a@", "a@b", "a@0", "../a", "a@-1"])
def test_choices_that_name_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ModelSelection.parse(text)


def test_a_model_that_is_swapped_out_lets_go_of_its_files_at_once(store: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(store))

    gc.disable()
    try:
        model = RankingModel.open(store / "tiny" / "1")
        assert model.rank(RankRequest(1, [100, 101, 7])).version == 1
        assert model.rank(RankRequest(99, [100])).version == 1
        assert mapped() > 0
        del model
        assert mapped() == 0
    finally:
        gc.enable()
