"""Copying versions to a store behind a URL: whatever is cut short, what is current there loads."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError, MoerankError, UnavailableError
from serving.registry.registry import Registry
from serving.store.bundle import load
from serving.store.local_store import point
from serving.store.model_source import open_source
from serving.store.remote_store import RemoteStore
from tests.tiny_bundle import publish_tiny

URL = "memory://mirror/store"
WRITES = ("put_file", "pipe_file")


@pytest.fixture
def files() -> Iterator[Any]:
    """The filesystem behind the URL, empty before and after."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]


@pytest.mark.usefixtures("files")
def test_what_was_pushed_is_served_and_rolled_back_and_taken_away(store: Path, tmp_path: Path) -> None:
    mirror, far = RemoteStore(URL), open_source(URL, tmp_path / "cache")
    assert mirror.push(store, "tiny") == 1
    registry = Registry(far)
    publish_tiny(store, tmp_path / "two", seed=1)
    assert mirror.push(store, "tiny") == 2
    assert registry.refresh()
    assert registry.get().bundle.manifest == load(store / "tiny" / "2").manifest
    mirror.point("tiny", 1)
    assert registry.refresh()
    assert registry.get().version == 1
    with pytest.raises(ConfigError, match="is the current one"):
        mirror.remove("tiny", 1)
    mirror.remove("tiny", 2)
    assert far.versions("tiny") == [1]
    for absent in (mirror.point, mirror.remove):
        with pytest.raises(ModelNotFoundError, match="it has: 1"):
            absent("tiny", 2)


def counted_copies(files: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of files that are uploaded from now on."""
    copied: list[str] = []
    put = type(files).put_file

    def counting(self: Any, local: str, name: str, *rest: Any, **named: Any) -> Any:
        copied.append(name)
        return put(self, local, name, *rest, **named)

    monkeypatch.setattr(type(files), "put_file", counting)
    return copied


def test_a_version_is_copied_once_and_pointed_to_again(
    files: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = RemoteStore(URL)
    publish_tiny(store, tmp_path / "two", seed=1)
    mirror.push(store, "tiny", 1)
    mirror.push(store, "tiny", 2)
    copied = counted_copies(files, monkeypatch)
    assert mirror.push(store, "tiny", 1) == 1
    assert open_source(URL, tmp_path / "cache").current("tiny") == 1
    assert copied == []


@pytest.mark.usefixtures("files")
def test_another_bundle_of_the_same_number_is_not_overwritten(store: Path, tmp_path: Path) -> None:
    RemoteStore(URL).push(store, "tiny")
    publish_tiny(tmp_path / "elsewhere", tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="another version 1 of tiny"):
        RemoteStore(URL).push(tmp_path / "elsewhere", "tiny")


@pytest.mark.usefixtures("files")
def test_what_is_damaged_here_does_not_go_there(store: Path) -> None:
    (store / "tiny" / "1" / "MODEL_CARD.md").write_text("altered")
    with pytest.raises(IntegrityError):
        RemoteStore(URL).push(store, "tiny")
    with pytest.raises(ModelNotFoundError, match="no version 7"):
        RemoteStore(URL).push(store, "tiny", 7)


class Cut(Exception):  # noqa: N818 the end of a process is not an error
    """The publisher was killed here."""


def cut_short(files: Any, work: Callable[[], object], monkeypatch: pytest.MonkeyPatch, after: int) -> bool:
    """Do work that dies before its write number `after`; whether it came so far."""
    left = after

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            return write(*given, **named)

        return wrapped

    with monkeypatch.context() as patched:
        for name in WRITES:
            patched.setattr(type(files), name, dying(getattr(type(files), name)))
        try:
            work()
        except UnavailableError:
            return True
    return False


def current_loads(tmp_path: Path, place: int) -> bool:
    """Whether a reader with an empty cache can load what is current."""
    far = open_source(URL, tmp_path / f"cache{place}")
    try:
        load(far.version_path("tiny", far.current("tiny")))
    except MoerankError:
        return False
    return True


def test_a_push_that_is_cut_short_anywhere_leaves_a_current_version_that_loads(
    files: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RemoteStore(URL).push(store, "tiny")
    publish_tiny(store, tmp_path / "two", seed=1)
    place = 0
    while cut_short(files, lambda: RemoteStore(URL).push(store, "tiny", 2), monkeypatch, place):
        assert current_loads(tmp_path, place)
        assert open_source(URL, tmp_path / "any").current("tiny") == 1
        files.rm("/mirror/store/tiny/2", recursive=True) if files.exists("/mirror/store/tiny/2") else None
        place += 1
    # Every file, the manifest and the pointer.
    assert place == len(load(store / "tiny" / "2").manifest.files) + 2
    assert open_source(URL, tmp_path / "any").current("tiny") == 2


def test_control_a_push_that_points_first_breaks_the_current_version(
    files: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RemoteStore(URL).push(store, "tiny")
    publish_tiny(store, tmp_path / "two", seed=1)
    point(store, "tiny", 2)

    def careless() -> None:
        try:
            files.pipe_file("/mirror/store/tiny/current", b"2\n")
            files.put_file(str(store / "tiny" / "2" / "model.onnx"), "/mirror/store/tiny/2/model.onnx")
        except Cut as cut:
            raise UnavailableError(str(cut)) from cut

    assert cut_short(files, careless, monkeypatch, 1)
    assert not current_loads(tmp_path, 0)
