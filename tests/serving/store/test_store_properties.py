"""Properties of the store: pointers, manifests, names of files."""

import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import IntegrityError
from serving.store.local_store import current, is_version, next_version, point, pointed, remove, versions
from serving.store.manifest import FileEntry, Manifest, require_safe

VERSIONS = st.integers(1, 10**18 - 1)
PARTS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6)
ENTRIES = st.builds(FileEntry, sha256=st.text("0123456789abcdef", min_size=64, max_size=64), size=st.integers(0))
MANIFESTS = st.builds(
    Manifest,
    schema_fingerprint=PARTS,
    tasks=st.lists(PARTS, min_size=1, max_size=3).map(tuple),
    model=PARTS.filter(lambda name: name[0].isalnum()),
    version=VERSIONS,
    created=PARTS,
    files=st.dictionaries(st.lists(PARTS, min_size=1, max_size=3).map("/".join), ENTRIES, max_size=3),
)


@given(VERSIONS)
def test_a_pointer_reads_back_as_its_version(version: int) -> None:
    assert pointed(f"{version}\n".encode(), "here") == version
    assert is_version(str(version))


@given(st.binary(max_size=20))
def test_any_other_bytes_are_no_pointer(content: bytes) -> None:
    try:
        version = pointed(content, "here")
    except IntegrityError:
        return
    assert content == f"{version}\n".encode()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_the_pointer_is_where_it_was_put_last(path: list[int]) -> None:
    with TemporaryDirectory() as folder:
        store = Path(folder)
        for version in set(path):
            (store / "m" / str(version)).mkdir(parents=True)
        for version in path:
            point(store, "m", version)
        assert current(store, "m") == path[-1]
        assert versions(store, "m") == sorted(set(path))


@given(st.sets(st.integers(2, 9), min_size=1), st.data())
def test_no_number_is_given_twice(made: set[int], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        store = Path(folder)
        for version in made:
            (store / "m" / str(version)).mkdir(parents=True)
        for version in data.draw(st.sets(st.sampled_from(sorted(made)))):
            remove(store, "m", version)
        assert next_version(store, "m") == max(made) + 1 if versions(store, "m") else next_version(store, "m") > 1
        assert next_version(store, "m") not in versions(store, "m")


@given(MANIFESTS)
def test_a_manifest_survives_its_file(manifest: Manifest) -> None:
    with TemporaryDirectory() as folder:
        manifest.save(Path(folder))
        assert Manifest.load(Path(folder)) == manifest.sealed()


@given(MANIFESTS, st.data())
def test_a_changed_byte_of_a_manifest_is_noticed(manifest: Manifest, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        manifest.save(Path(folder))
        path = Path(folder) / "manifest.json"
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(IntegrityError):
            Manifest.load(Path(folder))


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_plain_relative_names_are_safe(parts: list[str]) -> None:
    require_safe("/".join(parts))


@given(st.lists(PARTS, max_size=2), st.sampled_from(["..", "", ".", "a\\b", "a:b", "\n"]), st.lists(PARTS, max_size=2))
def test_names_that_could_lead_elsewhere_are_refused(before: list[str], bad: str, after: list[str]) -> None:
    with pytest.raises(IntegrityError, match="not allowed in a bundle"):
        require_safe("/".join([*before, bad, *after]))
