"""`moerank rank` names formulas and says how an answer came about: what drew it, which stage, which values."""

import json
from pathlib import Path

import pytest

from pipeline.cli.main import main
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.staged_bundle import publish_staged

POLICY = {
    "formulas": {"like": {"weights": {"like": 1}}, "stars": {"weights": {"rating": -1}}},
    "default": "like",
    "explore": {"method": "epsilon", "epsilon": 0.5},
}


def test_the_command_chooses_formulas_and_tells_what_the_answer_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_staged(tmp_path / "store", tmp_path / "work", cascade=2)
    (tmp_path / "score.json").write_text(json.dumps({"tiny": POLICY}), encoding="utf-8")
    with start(ServerSettings(store=tmp_path / "store", port=0, score=tmp_path / "score.json")) as server:
        words = ["rank", "--target", f"127.0.0.1:{server.port}", "--user", "3", "--items", "100,101,999"]
        assert main([*words, "--score", "stars", "--json", "--debug"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["score_name"], told["arm"], told["stage"]) == ("stars", "current", "cascade")
        assert told["exploration"].startswith("epsilon")
        assert len(told["propensities"]) == 3
        assert told["items"] == [100, 101, 999]
        assert told["sources"]["price"] == "looked up 2, unknown 1"
        assert told["request_id"]
        assert main([*words, "--debug"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "less than the whole model answered: cascade" in lines
        assert any(line.startswith("looked up 2, unknown 1: ") and "price" in line for line in lines)
        assert any(line.startswith("the ranking was drawn by epsilon") for line in lines)
        assert main([*words, "--greedy"]) == 0
        assert "drawn" not in capsys.readouterr().out
        assert main([*words, "--score", "star"]) == 2
        assert "like, stars" in capsys.readouterr().err
