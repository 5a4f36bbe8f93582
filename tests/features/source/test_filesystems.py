"""Paths that are URLs: found, and told apart when their content changes."""

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from features.source.data_files import find_files
from features.source.filesystems import file_facts


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server over the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_local_file_may_be_written_as_a_url_and_touching_it_changes_its_facts(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"1")
    for path in (str(tmp_path), f"file://{tmp_path}"):
        assert find_files(path, "here") == [str(tmp_path / "a.parquet")]
    before = file_facts([f"file://{tmp_path}/a.parquet"])
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert file_facts([f"file://{tmp_path}/a.parquet"]) != before


def test_a_file_in_a_store_has_facts_that_change_with_it() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/facts/a.parquet", b"1")
    before = file_facts(["memory:///facts/a.parquet"])
    assert file_facts(["memory:///facts/a.parquet"]) == before
    memory.pipe("/facts/a.parquet", b"22")
    assert file_facts(["memory:///facts/a.parquet"]) != before
    memory.rm("/facts", recursive=True)


def test_a_file_of_a_web_server_has_facts_that_change_with_it(site: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp")
    (tmp_path / "a.parquet").write_bytes(b"1")
    before = file_facts([f"{site}/a.parquet"])
    (tmp_path / "a.parquet").write_bytes(b"22")
    assert file_facts([f"{site}/a.parquet"]) != before
