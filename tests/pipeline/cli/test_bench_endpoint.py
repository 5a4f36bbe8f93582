"""`moerank bench-endpoint` against a running server, and against none; `moerank point`."""

import json
from pathlib import Path

import pytest

from pipeline.cli.main import main
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.store.local_store import current
from tests.tiny_bundle import publish_tiny


def test_it_reports_answers_and_refusals_by_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    requests = tmp_path / "requests.jsonl"
    good, bad = {"user": 1, "items": [100, 101]}, {"user": 1, "items": [100], "context": {"planet": "mars"}}
    requests.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
    with start(ServerSettings(store=tmp_path / "store", port=0)) as server:
        target = f"127.0.0.1:{server.port}"
        command = ["bench-endpoint", target, "--seconds", "1", "--callers", "3", "--json"]
        assert main([*command, "--requests", str(requests)]) == 0
        seen = json.loads(capsys.readouterr().out)
        assert main([*command[:-1], "--users", "1:8", "--items", "100:119", "--candidates", "5"]) == 0
    assert set(seen["statuses"]) == {"OK", "INVALID_ARGUMENT"}
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]
    assert seen["calls_per_second"] == pytest.approx(seen["statuses"]["OK"] / seen["seconds"])
    assert "answered:" in capsys.readouterr().out


def test_several_load_generators_share_the_callers_and_report_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    with start(ServerSettings(store=tmp_path / "store", port=0)) as server:
        command = ["bench-endpoint", f"127.0.0.1:{server.port}", "--seconds", "0.5", "--callers", "3", "--json"]
        assert main([*command, "--users", "1:8", "--items", "100:119", "--processes", "2"]) == 0
        seen = json.loads(capsys.readouterr().out)
        answered = sum(work.successes for work in server.telemetry.work())
    # The first share of the calls is not counted.
    assert 0 < seen["statuses"]["OK"] < answered
    assert seen["seconds"] == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--users", "9:1"], "LOW:HIGH"),
        (["--requests", "absent.jsonl"], "there is nothing at absent.jsonl"),
        (["--callers", "2", "--processes", "3"], "--processes is 3; allowed are 1 to 2"),
        (["--callers", "0"], "needs requests, callers"),
        (
            ["--callers", "2", "--connections", "3"],
            "--connections is 3; allowed are 1, the number of --processes, to 2",
        ),
        (["--callers", "4", "--processes", "2", "--connections", "1"], "--connections is 1; allowed are 2"),
    ],
)
def test_wrong_usage_is_said(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-endpoint", "127.0.0.1:1", *flags]) == 2
    assert words in capsys.readouterr().err


def test_point_rolls_back_and_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    for seed in (0, 1):
        publish_tiny(store, tmp_path / f"work{seed}", seed=seed)
    assert main(["point", str(store), "tiny", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "tiny", "before": 2, "current": 1}
    assert current(store, "tiny") == 1
    assert main(["point", str(store), "tiny", "9"]) == 1
    assert "it has: 1, 2" in capsys.readouterr().err
