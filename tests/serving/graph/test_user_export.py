"""A whole table of users in a real redis-server is read as the table itself."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import DataError
from features.online.request_encoder import RankRequest, RequestEncoder
from pipeline.cli.main import main
from serving.graph.user_export import export_users
from serving.graph.users import UserStore
from tests.serving.redis_server import Redis
from tests.tiny_bundle import USERS, make_schema


@pytest.fixture
def bundle(store: Path) -> Path:
    return store / "tiny" / "1"


def test_every_user_is_read_back_as_the_table_has_them(bundle: Path, users: UserStore) -> None:
    told: list[tuple[int, int]] = []
    assert export_users(bundle, users, progress=lambda done, total: told.append((done, total))) == len(USERS)
    assert told[-1] == (len(USERS), len(USERS))
    plain = RequestEncoder.open(bundle)
    stored = RequestEncoder.open(bundle, users.over(make_schema().fingerprint()))
    for user in USERS:
        one, other = (e.encode(RankRequest(user, [100, 101])).inputs.arrays() for e in (plain, stored))
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert (users.found, users.missed) == (len(USERS), 0)
    assert stored.encode(RankRequest(99, [100])).unknown_user


def test_the_command_exports_with_an_expiry(
    bundle: Path, redis_server: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-users", str(bundle), "--to", redis_server.url, "--expire", "60", "--json"]) == 0
    assert f'"users": {len(USERS)}' in capsys.readouterr().out
    keys = redis_server.client().keys("moerank:*:user:*")
    assert len(keys) == len(USERS)
    assert 0 < redis_server.client().ttl(keys[0]) <= 60


def test_a_model_without_users_has_nothing_to_export(tmp_path: Path, users: UserStore) -> None:
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "tables.json").write_text('{"pairs": []}', encoding="utf-8")
    with pytest.raises(DataError, match="no table of users"):
        export_users(tmp_path, users)
