"""The command: usage, exit codes, messages, and how fast it starts."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.cli.main import VERBS, build_parser, main
from pipeline.cli.verb import Verb
from tests.encoded_rows import write_dataset
from tests.patience import PATIENCE
from tests.pipeline.tiny_project import write_project
from tests.tiny_bundle import make_schema, publish_tiny

VERB_NAMES = [verb.name for verb in VERBS]
DESIGNED = ["demo", "features", "train", "evaluate", "compare", "export", "publish", "serve", "rank", "run"]
HEAVY = {"torch", "torchrec", "prefect", "grpc", "onnxruntime", "pyarrow", "numpy.random", "ibis", "duckdb"}


def test_every_promised_verb_is_there() -> None:
    operating = {"bench-endpoint", "versions", "point", "push", "unpublish", "export-users"}
    more = {
        "predict",
        "backtest",
        "backfill",
        "prune",
        "store",
        "schedule",
        "doctor",
        "import",
        "config-schema",
        "skew",
    }
    first = {"init", "check", "completion", "tune"}
    watching = {"monitor", "schedule-evaluation", "drift", "skew", "runs"}
    assert {*DESIGNED, *operating, *more, *first, *watching} == set(VERB_NAMES)


@pytest.mark.parametrize("verb", VERBS, ids=VERB_NAMES)
def test_the_help_of_a_verb_shows_an_example_that_parses(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb.name, "--help"])
    assert ended.value.code == 0
    assert verb.example in capsys.readouterr().out
    words = shlex.split(verb.example.partition(" > ")[0])
    assert build_parser().parse_args(words[1:]).verb == verb.name


@pytest.mark.parametrize("words", [[], ["nonsense"], ["rank"], ["run", "a.yaml", "--nonsense"]])
def test_wrong_usage_ends_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: moerank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["train", "a.yaml", "--seeds", "0"], 1),
        (["train", "a.yaml", "--ranks", "-1"], 1),
        (["train", "a.yaml", "--restarts", "-1"], 0),
        (["tune", "a.yaml", "--trials", "few"], 1),
    ],
)
def test_counts_that_cannot_be_are_refused(words: list[str], least: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"argument {words[2]}: '{words[3]}' is not a whole number of at least {least}" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from pipeline.cli.main import build_parser; build_parser()"
    code += f"; print(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_python_dash_m_pipeline_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "pipeline", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("moerank ")


def test_a_process_ends_with_its_command_without_a_last_collection() -> None:
    code = """
import sys
from pipeline.cli.main import main
class Loop:
    def __init__(self): self.me = self
    def __del__(self): print("looked through")
code = main()
import duckdb
Loop()
sys.exit(code)
"""
    words = [sys.executable, "-c", code, "completion", "bash"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "argcomplete" in done.stdout
    assert "looked through" not in done.stdout
    # A library of which a part went and a part stayed says so.
    assert done.stderr == ""


def test_a_refused_run_ends_with_its_message_and_no_library_complains_of_leaks(tmp_path: Path) -> None:
    write_project(tmp_path)
    words = [sys.executable, "-m", "pipeline", "run", "tiny.yaml", "--set", "data.events.user=nobody"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("moerank run: raw/events.parquet has no column 'nobody'")
    assert "leaked" not in done.stderr


def test_a_missing_config_is_one_message_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "nowhere.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("moerank features: CONFIG: there is nothing at nowhere.yaml")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "nowhere", "--data", "x"], "BUNDLE: there is nothing at nowhere"),
        (["evaluate", "store/tiny", "--data", "x"], "its current version is store/tiny/1"),
        (["evaluate", "store/tiny/1", "--data", "x"], "--data: there is nothing at x"),
        (["evaluate", "store/tiny/1", "--data", "split/test.parquet"], "a directory of parts; use split/test"),
        (["compare", "store", "store/tiny/1"], "store is not a bundle"),
        (["export", "store"], "store is not a training run"),
        (["publish", "nowhere"], "RUN: there is nothing at nowhere"),
        (["serve"], "moerank serve STORE"),
    ],
)
def test_a_path_to_the_wrong_thing_is_told_from_the_right_one(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    write_dataset(tmp_path / "split" / "test", [pa.table({"x": [1]})], make_schema())
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_message_and_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file, not a directory")
    assert main(["features", str(config), "--set", f"workspace={tmp_path / 'taken'}"]) == 1
    told = capsys.readouterr().err
    assert "taken" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "override",
    [
        "quality.rules=[buyy.auc >= 0.5]",
        "quality.tasks=[buyy]",
        "score.weights={buyy: 1}",
        "score.formulas.default.weights={buyy: 1}",
        "train.task_weights={buyy: 2}",
    ],
)
def test_a_task_that_is_not_there_is_refused_before_anything_is_done(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(write_project(tmp_path)), "--set", override]) == 2
    told = capsys.readouterr().err
    assert f"{override.partition('=')[0]}: no task 'buyy'" in told
    assert "data.tasks has like, rating" in told


def test_an_absent_server_is_one_message_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--user", "1", "--items", "1,2", "--target", "127.0.0.1:9", "--seconds", "1"]) == 1
    assert "moerank serve" in capsys.readouterr().err


def test_context_must_be_assignments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--items", "1", "--context", "tab"]) == 2
    assert "NAME=VALUE" in capsys.readouterr().err


def test_no_candidates_are_refused_before_a_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for items in ("", ",,"):
        assert main(["rank", "--items", items, "--target", "127.0.0.1:9"]) == 2
        assert "names no candidate" in capsys.readouterr().err


def test_a_wrong_server_setting_is_one_message_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "many"]) == 2
    assert "--port" in capsys.readouterr().err


def test_the_config_schema_is_one_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    blocks = {"name", "workspace", "data", "model", "train", "export", "evaluate", "quality", "score", "mirror"}
    blocks |= {"retention", "monitor", "tune", "mirror_delta"}
    assert blocks == set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.fixture
def served(tmp_path: Path) -> "subprocess.Popen[str]":
    """``moerank serve`` on a free port with a tiny model; its first log line names the port."""
    publish_tiny(tmp_path / "store", tmp_path / "work")
    command = [sys.executable, "-m", "pipeline", "serve", str(tmp_path / "store"), "--port", "0"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_serve_answers_rank_and_ends_on_ctrl_c(
    served: "subprocess.Popen[str]", capsys: pytest.CaptureFixture[str]
) -> None:
    assert served.stderr is not None
    try:
        line = next(line for line in served.stderr if "serving" in line)
        target = "127.0.0.1:" + line.strip().rpartition(":")[2]
        words = ["rank", "--target", target, "--items", "100,101,999", "--context", "tab=home"]
        assert main([*words, "--user", "1", "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert sorted(answer["ranked"]) == [100, 101, 999]
        assert set(answer["predictions"]) == {"like", "rating"}
        assert answer["unknown_items"] == [999]
        assert main([*words, "--user", "77"]) == 0
        told = capsys.readouterr().out
        assert "tiny version 1" in told
        assert "does not know this user" in told
        assert main([*words, "--user", "someone"]) == 2
        served.send_signal(signal.SIGINT)
        assert served.wait(timeout=PATIENCE) == 0
    finally:
        served.kill()
        served.wait()
        served.stderr.close()


def test_an_interrupted_verb_says_so_and_ends_with_code_130(tmp_path: Path) -> None:
    # A package index that accepts connections and never answers keeps the fetch waiting until it is interrupted.
    with socket.create_server(("127.0.0.1", 0)) as index:
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        environment |= {"PIP_INDEX_URL": url, "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "-m", "pipeline", "import", "movielens", "films", "--cache", "cache"]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path, env=environment
        ) as running:
            connection, _ = index.accept()
            with connection:
                connection.recv(1)  # The fetch has sent its request: the command is waiting for it.
                running.send_signal(signal.SIGINT)
                _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert said.endswith("moerank import: interrupted; the same command goes on where this one stopped\n")
    assert "Traceback" not in said
    assert not (tmp_path / "films").exists()
