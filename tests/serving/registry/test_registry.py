"""New versions replace old ones, and the last good one serves on after any failure."""

import gc
import logging
import shutil
from pathlib import Path

import pytest

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError, UnavailableError
from features.online.request_encoder import RankRequest
from serving.graph.model_graphs import EngineOptions
from serving.graph.served_model import RankingModel
from serving.registry.registry import Registry
from serving.store.local_store import point
from serving.store.model_selection import ModelSelection
from tests.card import HAS_CARD
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


def test_a_folder_under_another_models_name_is_not_served_as_that_model(store: Path) -> None:
    shutil.copytree(store / "tiny", store / "other")
    registry = Registry(store)
    assert [model.name for model in registry.models()] == ["tiny"]
    assert registry.refused_models() == ["other"]
    with pytest.raises(IntegrityError, match="holds tiny version 1 by its manifest"):
        Registry(store, [ModelSelection.parse("other")])


@pytest.mark.parametrize("broken", ["graph", "pointer", "missing"])
def test_a_restart_beside_a_broken_version_serves_the_newest_that_verifies(
    store: Path, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish_tiny(store, tmp_path / "two", seed=1)
    if broken == "graph":
        (store / "tiny" / "2" / "model.onnx").write_bytes(b"no graph")
    elif broken == "pointer":
        (store / "tiny" / "current").write_text("latest")
    else:
        shutil.rmtree(store / "tiny" / "2")
    registry = Registry(store)
    assert registry.get().version == (2 if broken == "pointer" else 1)
    assert registry.refused() == ["tiny"]
    assert "instead, the newest that can be served" in caplog.text
    assert "stays absent" not in caplog.text
    assert not registry.refresh()
    point(store, "tiny", 1)
    registry.refresh()
    assert registry.get().version == 1
    assert registry.refused() == []


@pytest.mark.skipif(HAS_CARD, reason="this machine has a card")
def test_without_the_card_that_is_required_older_versions_and_other_models_are_not_tried(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, model in enumerate(("tiny", "tiny", "other")):
        publish_tiny(store, tmp_path / f"work-{place}", model=model)
    with pytest.raises(ConfigError, match=r"a GPU is required.*/other/1/"):
        Registry(store, options=EngineOptions(device="cuda"))
    # The error says it all, once.
    assert caplog.text == ""


def test_a_model_loaded_again_beside_a_broken_version_is_the_newest_that_verifies(store: Path, tmp_path: Path) -> None:
    registry = Registry(store)
    publish_tiny(store, tmp_path / "two", seed=1)
    (store / "tiny" / "2" / "model.onnx").write_bytes(b"no graph")
    registry.unload("tiny")
    registry.load("tiny")
    assert registry.get().version == 1
    assert registry.refused() == ["tiny"]
    with pytest.raises(UnavailableError, match="could not be loaded"):
        registry.load("tiny")
    assert registry.get().version == 1


def test_a_pinned_version_that_is_broken_cannot_be_loaded_again(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(store, [ModelSelection.parse("tiny@1")])
    registry.unload("tiny")
    (store / "tiny" / "1" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UnavailableError, match="could not be loaded"):
        registry.load("tiny")
    assert "stays absent" in caplog.text
    assert registry.models() == []


def test_a_broken_model_does_not_keep_the_others_from_serving(store: Path, tmp_path: Path) -> None:
    publish_tiny(store, tmp_path / "other", model="other")
    (store / "other" / "1" / "model.onnx").write_bytes(b"no graph")
    registry = Registry(store)
    assert [model.name for model in registry.models()] == ["tiny"]
    assert registry.refused_models() == ["other"]


def test_a_misspelt_model_in_the_score_file_is_refused_with_the_closest_name(store: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text('{"tinny": {"weights": {"like": 1.0}}}')
    with pytest.raises(ConfigError, match=r"'tinny'.* did you mean 'tiny'"):
        Registry(store, score_file=scores)


def test_whoever_follows_the_models_is_told_of_changes(store: Path, tmp_path: Path) -> None:
    registry = Registry(store)
    told: list[list[int]] = []
    registry.changed = lambda: told.append([model.version for model in registry.models()])
    publish_tiny(store, tmp_path / "two", seed=1)
    registry.refresh()
    registry.unload("tiny")
    registry.load("tiny")
    assert told == [[2], [], [2]]
