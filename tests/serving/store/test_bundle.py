"""Publishing and verifying bundles."""

import json
import os
import shutil
from pathlib import Path

import pytest

from contract.errors import ConfigError, DataError, IntegrityError, SchemaMismatchError
from serving.store.bundle import load, publish
from serving.store.local_store import current
from serving.store.manifest import require_safe
from tests.tiny_bundle import make_files, make_schema, publish_tiny


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return publish_tiny(tmp_path / "store", tmp_path / "work")


def test_a_published_bundle_loads_and_is_current(tmp_path: Path, bundle: Path) -> None:
    loaded = load(bundle)
    assert bundle == tmp_path / "store" / "tiny" / "1"
    assert loaded.manifest.version == current(tmp_path / "store", "tiny") == 1
    assert loaded.schema == make_schema()
    assert loaded.manifest.git_revision == "abc"
    assert "online/item/keys.npy" in loaded.manifest.files


def test_each_publication_is_a_new_version(tmp_path: Path, bundle: Path) -> None:
    second = publish_tiny(tmp_path / "store", tmp_path / "more", seed=1)
    assert (bundle.name, second.name) == ("1", "2")
    assert current(tmp_path / "store", "tiny") == 2
    assert load(bundle).manifest.version == 1


def test_any_flipped_bit_is_refused(bundle: Path) -> None:
    for file in sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "manifest.json"):
        content = file.read_bytes()
        place = len(content) // 2
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(IntegrityError, match="sha256"):
            load(bundle)
        file.write_bytes(content)
    load(bundle)


def test_a_truncated_file_is_refused_by_its_size(bundle: Path) -> None:
    os.truncate(bundle / "model.onnx", 10)
    with pytest.raises(IntegrityError, match=r"model\.onnx has 10 bytes"):
        load(bundle)


def test_a_missing_file_is_refused_by_name(bundle: Path) -> None:
    (bundle / "golden.npz").unlink()
    with pytest.raises(IntegrityError, match=r"missing \['golden\.npz'\]"):
        load(bundle)


def test_an_extra_file_is_refused_by_name(bundle: Path) -> None:
    (bundle / "online" / "more.bin").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"not listed \['online/more\.bin'\]"):
        load(bundle)


@pytest.mark.parametrize("place", ["file", "folder", "bundle", "manifest"])
def test_a_symbolic_link_is_refused_wherever_it_is(bundle: Path, tmp_path: Path, place: str) -> None:
    path = {
        "file": bundle / "model.onnx",
        "folder": bundle / "online",
        "bundle": bundle,
        "manifest": bundle / "manifest.json",
    }[place]
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(IntegrityError, match="link"):
        load(bundle)


def test_a_hard_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    os.link(bundle / "model.onnx", tmp_path / "other")
    with pytest.raises(IntegrityError, match="hard-linked 2 times"):
        load(bundle)


def test_a_fifo_is_refused(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")
    with pytest.raises(IntegrityError, match="special file"):
        load(bundle)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "./a", "a\\b", "C:x", "a\nb"])
def test_file_names_that_could_lead_out_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="not allowed"):
        require_safe(name)


def test_a_manifest_that_names_a_path_outside_is_refused(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', '"../model.onnx"'))
    with pytest.raises(IntegrityError, match="not allowed"):
        load(bundle)


def test_a_manifest_with_unknown_fields_is_refused(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("{", '{"colour": "red",', 1))
    with pytest.raises(IntegrityError, match="colour"):
        load(bundle)


@pytest.mark.parametrize(("written", "advice"), [(0, "publish the model again"), (2, "serve it with a newer moerank")])
def test_a_manifest_of_another_format_says_what_to_do(bundle: Path, written: int, advice: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"format": written}))
    with pytest.raises(IntegrityError, match=f"has the format {written}, but .* format 1: {advice}"):
        load(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not a bundle"):
        load(tmp_path)


def test_a_manifest_with_another_schema_publishes_nothing(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work")
    with pytest.raises(SchemaMismatchError):
        publish(tmp_path / "store", "tiny", files, {"schema_fingerprint": "0" * 16, "tasks": ["like"]})
    assert not list((tmp_path / "store").rglob("manifest.json"))


def test_a_missing_source_publishes_nothing(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work") | {"report.html": tmp_path / "absent.html"}
    with pytest.raises(DataError, match=r"absent\.html"):
        publish(tmp_path / "store", "tiny", files, {"schema_fingerprint": "x", "tasks": ["like"]})
    assert not (tmp_path / "store").exists()


def test_a_wrong_manifest_is_refused_with_all_its_problems(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"schema_fingerprint: .*tasks: .*colour: "):
        publish(tmp_path / "store", "tiny", {}, {"tasks": 3, "colour": "red"})


def test_a_bundle_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs model\.onnx"):
        publish(tmp_path / "store", "tiny", {}, {"schema_fingerprint": "x", "tasks": ["like"]})


def test_a_model_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path / "work")
    with pytest.raises(ConfigError, match="cannot name a model"):
        publish(tmp_path / "store", "../tiny", files, {"schema_fingerprint": "x", "tasks": ["like"]})


def test_a_full_disk_leaves_no_part_of_a_bundle(small_disk: Path, tmp_path: Path) -> None:
    store = small_disk / "store"
    publish_tiny(store, tmp_path / "work")
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - 32 * 1024))
    before = sorted(store.rglob("*"))
    with pytest.raises(OSError, match="No space left"):
        publish_tiny(store, tmp_path / "more", seed=1)
    assert [path for path in sorted(store.rglob("*")) if not path.name.startswith(".")] == [
        path for path in before if not path.name.startswith(".")
    ]
    assert load(store / "tiny" / "1").manifest.version == current(store, "tiny") == 1


def test_something_in_the_place_of_the_next_version_is_told(tmp_path: Path, bundle: Path) -> None:
    (bundle.parent / "2").write_text("a note")
    with pytest.raises(ConfigError, match="is in the way"):
        publish_tiny(tmp_path / "store", tmp_path / "more", seed=1)
    assert (bundle.parent / "2").read_text() == "a note"
    assert current(tmp_path / "store", "tiny") == 1
