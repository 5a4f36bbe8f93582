"""The probe of containers says what the server's health service says."""

from pathlib import Path

import pytest

from serving.client.probe import main
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings


def test_a_server_is_healthy_until_it_drains(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start(ServerSettings(store=store, port=0)) as server:
        target = f"127.0.0.1:{server.port}"
        assert main([target]) == 0
        assert main([target, "--service", "moerank.v1.RankingService"]) == 0
        assert main([target, "--service", "moerank.v1.Absent"]) == 1
        server.health.drain()
        assert main([target]) == 1
    assert main([target]) == 1
    assert f"{target} does not say that it is serving" in capsys.readouterr().err
