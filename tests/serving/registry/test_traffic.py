"""Canary and shadow: a stable share is answered by another version, or compared with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from contract.errors import ConfigError, ModelNotFoundError
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.registry.registry import Registry
from serving.registry.traffic import falls_in, read_traffic
from serving.store.local_store import point
from serving.store.model_selection import read_scores
from tests.patience import PATIENCE, wait_until
from tests.tiny_bundle import publish_tiny

CANARY = {"tiny": {"canary": {"version": 2, "share": 0.3}}}


@pytest.fixture
def two(store: Path, tmp_path: Path) -> Path:
    """A store whose version 2 exists while version 1 is current."""
    publish_tiny(store, tmp_path / "second", seed=1)
    point(store, "tiny", 1)
    return store


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_shares_are_kept_and_growing_them_moves_nobody_back() -> None:
    keys = [str(key) for key in range(20_000)]
    small, large = ({k for k in keys if falls_in(share, "m", "canary", k)} for share in (0.05, 0.3))
    assert small < large
    assert len(small) / len(keys) == pytest.approx(0.05, abs=0.01)
    assert len(large) / len(keys) == pytest.approx(0.3, abs=0.02)
    assert not any(falls_in(0.0, "m", "canary", k) for k in keys)
    assert all(falls_in(1.0, "m", "canary", k) for k in keys)
    others = {k for k in keys if falls_in(0.3, "other", "canary", k)}
    assert len(large & others) / len(large) == pytest.approx(0.3, abs=0.03)


def test_a_canary_answers_its_share_by_user_and_leaves_when_it_is_taken_away(two: Path, tmp_path: Path) -> None:
    traffic = write(tmp_path / "traffic.json", CANARY)
    registry = Registry(two, traffic_file=traffic)
    versions = {str(user): registry.choose("", 0, str(user))[0].version for user in range(1000)}
    assert sum(version == 2 for version in versions.values()) / 1000 == pytest.approx(0.3, abs=0.05)
    assert all(registry.choose("", 0, user)[0].version == version for user, version in versions.items())
    assert registry.choose("", 1, "1")[0].version == 1
    assert registry.get("tiny", 2).version == 2
    write(traffic, {})
    registry.refresh()
    assert {registry.choose("", 0, user)[0].version for user in versions} == {1}
    with pytest.raises(ModelNotFoundError):
        registry.get("tiny", 2)


def test_a_canary_that_cannot_be_loaded_leaves_the_current_version_alone(two: Path, tmp_path: Path) -> None:
    (two / "tiny" / "2" / "model.onnx").write_bytes(b"broken")
    registry = Registry(two, traffic_file=write(tmp_path / "traffic.json", CANARY))
    assert registry.refused() == ["tiny canary"]
    assert {registry.choose("", 0, str(user))[0].version for user in range(100)} == {1}


@pytest.mark.parametrize(
    "wrong",
    [{"tiny": {"canary": {"version": 2, "share": 1.5}}}, {"tiny": {"blue": {}}}, {"tiny": {"canary": {"share": 1}}}],
)
def test_wrong_traffic_files_are_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ConfigError, match="traffic file"):
        read_traffic(write(tmp_path / "traffic.json", wrong))


def test_a_wrong_traffic_file_changes_nothing_while_serving(two: Path, tmp_path: Path) -> None:
    traffic = write(tmp_path / "traffic.json", CANARY)
    registry = Registry(two, traffic_file=traffic)
    traffic.write_text("{", encoding="utf-8")
    registry.refresh()
    assert registry.refused() == ["the traffic file"]
    assert len({registry.choose("", 0, str(user))[0].version for user in range(100)}) == 2


def test_a_shadow_is_compared_and_never_answers(two: Path, tmp_path: Path) -> None:
    traffic = write(tmp_path / "traffic.json", {"tiny": {"shadow": {"version": 2, "share": 1.0}}})
    settings = ServerSettings(store=two, port=0, traffic=traffic)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        answers = [client.rank(user, [100, 101, 102]) for user in range(1, 6)]
        wait_until(lambda: any(each.compared == len(answers) for each in server.shadows.comparisons()))
        found = server.shadows.comparisons()
        shadow = server.registry.arms.loaded()["tiny", "shadow"].model
        primary = server.registry.get()
        assert {answer.version for answer in answers} == {1}
        assert (primary.version, shadow.version) == (1, 2)
        assert found[0].rows == 3 * len(answers)
        assert found[0].failed == 0
        assert np.isfinite(found[0].difference["like"])
        assert found[0].difference["like"] > 0


def test_a_file_that_is_no_json_is_named_and_so_is_where(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("{nope")
    for read in (read_traffic, read_scores):
        with pytest.raises(ConfigError, match=r"file\.json is wrong: the whole file: Invalid JSON"):
            read(tmp_path / "file.json")
