"""A running server takes a delta over in memory: what changed is swapped in, all else stays the objects that serve."""

import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.hashing import hash_integers
from features.online.request_encoder import RankRequest
from serving.graph.served_model import RankingModel
from serving.registry.registry import Registry
from serving.store.bundle import publish
from serving.store.model_source import open_source
from serving.store.remote_store import RemoteStore
from tests.patience import wait_until
from tests.serving.store.test_remote_store import URL, files
from tests.tiny_bundle import ITEMS, make_files, make_schema, online_tables, publish_tiny

__all__ = ["files"]
REQUEST = RankRequest(3, ITEMS, {"tab": "home"})
FACTS = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"], "git_revision": "abc"}


def publish_prices(store: Path, work: Path, add: float) -> Path:
    """A version that has other prices of items, and nothing else."""
    sources = make_files(work)
    path = sources["online/item/dense.npy"]
    prices = np.load(path)
    # Not of the items that the golden request names.
    named, _ = online_tables().by_name()["item"].find(hash_integers(np.array([100, 101])))
    changed = np.setdiff1d(np.arange(len(prices) - 1), named)
    prices[changed] += np.float32(add)
    np.save(path, prices)
    return publish(store, "tiny", sources, FACTS)


@pytest.fixture
def serving(store: Path, tmp_path: Path, files: Any) -> Registry:  # noqa: ARG001 a fixture of another file
    RemoteStore(URL).push(store, "tiny", 1)
    return Registry(open_source(URL, tmp_path / "cache"))


def scores(model: RankingModel) -> bytes:
    return np.asarray(model.rank(REQUEST).scores).tobytes()


def test_a_delta_of_a_table_leaves_graphs_vocabularies_and_other_arrays_as_they_are(
    serving: Registry, store: Path, tmp_path: Path
) -> None:
    before = serving.get()
    publish_prices(store, tmp_path / "two", 1.0)
    RemoteStore(URL).push_delta(store, "tiny", 2)
    assert serving.refresh()
    after = serving.get()
    assert after.version == 2
    assert after.engine is before.engine
    assert after.encoder.encoder.vocabularies is before.encoder.encoder.vocabularies
    old, new = before.encoder.tables.by_name(), after.encoder.tables.by_name()
    assert np.shares_memory(new["user"].dense, old["user"].dense)
    assert np.shares_memory(new["item"].ids, old["item"].ids)
    assert np.shares_memory(new["item"].index.hashes, old["item"].index.hashes)
    assert not np.shares_memory(new["item"].dense, old["item"].dense)


def test_the_answers_are_to_the_bit_those_of_the_whole_version(serving: Registry, store: Path, tmp_path: Path) -> None:
    first = scores(serving.get())
    publish_prices(store, tmp_path / "two", 1.0)
    publish_tiny(store, tmp_path / "three", seed=1)
    for version in (2, 3):
        RemoteStore(URL).push_delta(store, "tiny", version)
        assert serving.refresh()
        whole = scores(RankingModel.open(store / "tiny" / str(version)))
        assert scores(serving.get()) == whole
        assert whole != first


def test_requests_on_their_way_see_one_version_only(serving: Registry, store: Path, tmp_path: Path) -> None:
    for version in range(2, 6):
        publish_prices(store, tmp_path / str(version), float(version))
    expected = {n: scores(RankingModel.open(store / "tiny" / str(n))) for n in range(1, 6)}
    seen: set[int] = set()
    wrong: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = serving.get().rank(REQUEST)
            seen.add(answer.version)
            if np.asarray(answer.scores).tobytes() != expected[answer.version]:
                wrong.append(answer.version)

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    for version in range(2, 6):
        RemoteStore(URL).push_delta(store, "tiny", version)
        assert serving.refresh()
        wait_until(partial(seen.__contains__, version))
    stop.set()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_damaged_delta_of_a_table_is_refused_and_the_version_before_answers_as_before(
    serving: Registry, store: Path, tmp_path: Path, files: Any
) -> None:
    first = scores(serving.get())
    publish_prices(store, tmp_path / "two", 1.0)
    RemoteStore(URL).push_delta(store, "tiny", 2)
    name = next(path for path in files.find("/mirror/store/tiny/2") if "item/dense.npy" in path)
    content = bytearray(files.cat_file(name))
    content[len(content) // 2] ^= 1
    files.pipe_file(name, bytes(content))
    assert not serving.refresh()
    assert serving.get().version == 1
    assert scores(serving.get()) == first


def test_what_was_taken_over_outlives_the_files_of_the_version_before(
    serving: Registry, store: Path, tmp_path: Path
) -> None:
    publish_prices(store, tmp_path / "two", 1.0)
    RemoteStore(URL).push_delta(store, "tiny", 2)
    assert serving.refresh()
    shutil.rmtree(tmp_path / "cache" / "tiny" / "1")
    assert scores(serving.get()) == scores(RankingModel.open(store / "tiny" / "2"))
