"""The whole flow on a tiny project, as commands: made, reused, interrupted, refused, scheduled."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.cli.main import main
from tests.pipeline.flow.shop import TO_FILE, Shop, wait_for

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENTS = ROOT / "deploy" / "prefect.yaml"
STEPS = ("features", "train", "export", "evaluate", "publish")
# Runs the flow with a rule that nothing passes, and a notification block that writes to a file.
REFUSED_RUN = f"""
import json, sys
from pathlib import Path
from pipeline.flow.prefect_server import prefect_api

with prefect_api(Path("prefect")) as ready:
    from pipeline.flow.flows import build_model
{TO_FILE}    strict = ["quality.rules=[like.auc >= 0.999]"]
    state = build_model(Path("tiny.yaml"), strict, notify=["tofile/here"], return_state=True)
    print(json.dumps([state.name, state.type.value]))
"""


def servers(folder: Path) -> list[int]:
    """Processes of Prefect's API that keep their files in this folder."""
    home = str(folder / "prefect")
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if "prefect.server.api.server:create_app" in (process.info["cmdline"] or []):
            try:
                found += [process.pid] if process.environ().get("PREFECT_HOME") == home else []
            except psutil.Error:
                continue
    return found


def test_a_run_answers_with_the_paths_and_the_metrics_of_what_it_made(shop: Shop) -> None:
    assert {"run", "bundle", "store", "report", "tensorboard", "metrics"} == set(shop.made)
    for name in ("run", "bundle", "store", "report", "tensorboard"):
        assert (shop.folder / shop.made[name]).exists()
    assert set(shop.made["metrics"]) == {"like", "rating"}
    assert {"model.onnx", "schema.json", "golden.npz", "MODEL_CARD.md", "report.html", "evaluation.json"} <= {
        path.name for path in (shop.folder / shop.made["bundle"]).iterdir()
    }
    assert "<h1>tiny</h1>" in (shop.folder / shop.made["report"]).read_text()


def asked(shop: Shop, query: str) -> list[Any]:
    """What Prefect's private database knows of the shop's runs."""
    with contextlib.closing(sqlite3.connect(shop.folder / "prefect" / "prefect.db")) as database:
        return database.execute(query).fetchall()


def test_a_run_keeps_pages_on_data_metrics_gate_and_version_as_artifacts(shop: Shop) -> None:
    pages = dict(asked(shop, "select key, data from artifact"))
    assert set(pages) == {"data-quality-tiny", "metrics-tiny", "quality-gate-tiny", "version-tiny"}
    assert "2,000 rows" in pages["data-quality-tiny"]
    assert "0 days reused" in pages["data-quality-tiny"]
    value = shop.made["metrics"]["like"]["auc"]
    assert re.search(rf"\| like \| auc \| {value:.4f} \| 0\.\d+ to 0\.\d+ \|", pages["metrics-tiny"])
    assert "version 1" in pages["version-tiny"]
    report = shop.folder / shop.made["report"]
    assert f"[{report}]({report.as_uri()})" in pages["version-tiny"]
    quality = shop.folder / "runs" / "tiny" / "features" / "quality.html"
    assert f"[{quality}]({quality.as_uri()})" in pages["data-quality-tiny"]


def test_a_run_is_named_by_project_and_day_and_tagged(shop: Shop) -> None:
    ((name, tags),) = asked(shop, "select name, tags from flow_run limit 1")
    assert re.fullmatch(r"tiny-\d{4}-\d{2}-\d{2}", name)
    assert sorted(json.loads(tags)) == ["moerank", "tiny"]


def test_the_graph_of_a_run_shows_each_step_waiting_for_the_one_before(shop: Shop) -> None:
    query = "select id, name, task_inputs from task_run order by start_time limit 5"
    runs = [(str(uuid.UUID(identity)), name, inputs) for identity, name, inputs in asked(shop, query)]
    assert [name.partition("-")[0] for _, name, _ in runs] == list(STEPS)
    for before, after in pairwise(runs):
        assert before[0] in after[2]


def test_a_private_prefect_server_ends_with_its_command(shop: Shop) -> None:
    assert servers(shop.folder) == []


@pytest.fixture
def here(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder, entered: commands in this process save the seconds of their imports."""
    monkeypatch.chdir(shop.folder)
    return shop.folder


def test_what_is_unchanged_is_reused_and_said_to_be(shop: Shop, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "tiny.yaml"]) == 0
    assert main(["train", "tiny.yaml"]) == 0
    assert main(["publish", shop.made["run"]]) == 0
    told = capfd.readouterr()
    assert [line.partition(":")[0] for line in told.err.splitlines() if ": reused" in line] == list(STEPS)
    assert shop.made["bundle"] in told.out
    assert [path.name for path in (here / shop.made["store"] / "tiny").glob("[0-9]*")] == ["1"]


def test_the_report_shows_which_experts_the_tasks_use(shop: Shop) -> None:
    evaluation = json.loads((shop.folder / shop.made["bundle"] / "evaluation.json").read_bytes())
    assert [len(row) for row in evaluation["experts"]["share"]] == [4, 4]
    assert sum(evaluation["experts"]["weight"][0]) == pytest.approx(1.0, abs=1e-3)


def test_the_manifest_tells_how_the_predictions_of_the_validation_rows_were_distributed(shop: Shop) -> None:
    manifest = json.loads((shop.folder / shop.made["bundle"] / "manifest.json").read_bytes())
    told = manifest["about"]["export"]["predictions"]
    assert set(told) == set(manifest["tasks"])
    assert all(
        sum(counts["counts"]) > 0 and len(counts["counts"]) == len(counts["edges"]) + 1 for counts in told.values()
    )


def test_a_version_that_was_removed_from_the_store_is_published_anew(shop: Shop, here: Path) -> None:
    other = here / "other"
    settings = ["--set", f"workspace={other}", "--set", "train.epochs=1"]
    for verb in ("features", "train"):
        assert main([verb, "tiny.yaml", *settings]) == 0
    (run,) = (other / "tiny" / "training").iterdir()
    assert main(["publish", str(run)]) == 0
    shutil.rmtree(other / "tiny" / "store")
    assert main(["publish", str(run)]) == 0
    assert (other / "tiny" / "store" / "tiny" / "1" / "manifest.json").is_file()
    assert (here / shop.made["bundle"]).is_dir()


@pytest.mark.usefixtures("here")
def test_changed_settings_repeat_only_what_depends_on_them(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny.yaml", "--set", "train.seed=5", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["run"] != shop.made["run"]
    assert main(["features", "tiny.yaml", "--set", "train.seed=5"]) == 0
    assert "features: reused" in capfd.readouterr().err


@pytest.mark.usefixtures("here", "shop")
def test_training_on_features_of_other_settings_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tiny.yaml", "--set", "data.seed=3"]) == 2
    assert "other `data:` settings" in capfd.readouterr().err


@pytest.mark.usefixtures("here", "shop")
@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("tab", "score.by: no feature 'tab'; there are item, user, year"),
        ("year", "chosen by 'year', which no request has in its context; allowed are: none"),
    ],
    ids=["no column", "a column of the items"],
)
def test_a_formula_chosen_by_what_no_request_tells_is_refused_before_training(
    feature: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    score = f"score={{formulas: {{a: {{weights: {{like: 1}}}}}}, default: a, by: {{{feature}: {{home: a}}}}}}"
    assert main(["train", "tiny.yaml", "--set", score]) == 2
    assert words in capfd.readouterr().err


def test_an_export_takes_its_settings_from_the_command(
    shop: Shop, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = here / "smaller"
    shutil.copytree(here / shop.made["run"], run)
    words = ["--tables", "fp16", "--calibration", "platt", "--packed", "--form", "dense", "--json"]
    assert main(["export", str(run), *words, "--cuda", "fp16"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["form"] == "dense"
    assert set(told["calibration"]) <= {"like"}
    assert told["changes"]["fp16 tables"]["rating"]["metric"] == "rmse"
    made = {path.name for path in (run / "export").iterdir()}
    assert {"model.onnx", "packed.onnx", "tables.fp16.bin", "golden.npz"} <= made
    assert "below 32768 int8 spares nothing" in told["left_out"]["int8 experts"]
    assert (told["graphs"]["cpu"]["packed"], told["graphs"]["cuda"]["packed"]) == ("packed.onnx", "packed.cuda.onnx")
    assert {fact["form"] for fact in told["cuda"]["files"].values()} == {"wide"}
    assert {"model.cuda.onnx", "packed.cuda.onnx", "model.cuda.fp16.onnx", "packed.cuda.fp16.onnx"} <= made
    assert told["cuda_precisions"]["fp16"]["passed"]
    assert "tables: fp16" in (run / "config.yaml").read_text(encoding="utf-8")


def test_the_quality_gate_refuses_with_code_3_and_publishes_nothing(
    shop: Shop, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    strict = here / "strict"
    shutil.copytree(here / shop.made["run"], strict)
    config = (strict / "config.yaml").read_text(encoding="utf-8")
    (strict / "config.yaml").write_text(config.replace("rules: []", "rules: [like.auc >= 0.999]"), encoding="utf-8")
    before = sorted((here / shop.made["store"]).rglob("*"))
    assert main(["publish", str(strict)]) == 3
    assert "like.auc" in capfd.readouterr().err
    assert sorted((here / shop.made["store"]).rglob("*")) == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("verb", "setting", "code", "said"),
    [
        ("run", "train.epoch=3", 2, "train.epoch: no such key (value 3); did you mean 'epochs'"),
        ("features", "data.events.path=nowhere.parquet", 1, "nowhere.parquet"),
        ("features", "data.events.user=who", 1, "who"),
        ("train", "name=other", 1, "moerank features CONFIG"),
        ("train", "train.task_weights={lik: 2}", 2, "lik"),
    ],
)
def test_what_cannot_work_is_one_message_and_the_right_code(
    verb: str, setting: str, code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "tiny.yaml", "--set", setting]) == code
    told = capfd.readouterr().err.splitlines()
    message = next(index for index, line in enumerate(told) if line.startswith(f"moerank {verb}: "))
    assert said in "\n".join(told[message:])


def test_a_refused_run_is_no_failure_in_prefect_and_tells_who_asked_to_be_told(shop: Shop, tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    program = tmp_path / "refused.py"
    program.write_text(REFUSED_RUN, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(told)],
        check=False, capture_output=True, text=True, cwd=shop.folder, env=shop.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Refused", "COMPLETED"]
    assert told.read_text(encoding="utf-8").startswith("moerank: tiny-")
    assert "like.auc" in told.read_text(encoding="utf-8")


def test_a_published_bundle_is_evaluated_and_compared(
    shop: Shop, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, features = shop.made["bundle"], here / "runs" / "tiny" / "features"
    rows = ["--data", str(features / "test"), "--out", str(tmp_path), "--replicates", "60"]
    assert main(["evaluate", bundle, *rows, "--train", str(features / "train"), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["metrics"] == shop.made["metrics"]
    assert Path(judged["report"]).is_file()
    assert main(["compare", bundle, str(tmp_path / "predictions.parquet"), *rows]) == 0
    assert "no clear difference" in capsys.readouterr().out


def test_ctrl_c_ends_a_run_cleanly_and_the_next_one_goes_on(
    shop: Shop, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ["train.seed=9", "train.epochs=60", "train.early_stopping=null"]
    words = ["tiny.yaml", *(word for setting in settings for word in ("--set", setting))]
    line = [sys.executable, "-m", "pipeline", "run", *words]
    # A session of its own, so that the signal reaches the whole group, as ctrl-c in a terminal does.
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, cwd=here, env=shop.environment, start_new_session=True
    ) as running:
        assert running.stderr is not None
        before = list(until("epoch 2", running.stderr))
        os.killpg(running.pid, signal.SIGINT)
        after = running.stderr.read()
    assert "epoch 60" not in after
    assert running.returncode == 130
    assert "features: reused" in "".join(before)
    assert "Traceback" not in after
    assert after.endswith("moerank run: interrupted; the same command goes on where this one stopped\n")
    assert servers(shop.folder) == []
    assert main(["train", *words]) == 0
    resumed = capfd.readouterr().err
    assert "epoch 60" in resumed
    assert not re.search(r"epoch [12]\b", resumed)


def test_a_terminated_run_takes_its_server_with_it(shop: Shop) -> None:
    line = [sys.executable, "-m", "pipeline", "run", "tiny.yaml"]
    with subprocess.Popen(line, cwd=shop.folder, env=shop.environment, start_new_session=True) as running:
        wait_for(lambda: servers(shop.folder) != [], 300)
        running.terminate()
    assert running.returncode == 128 + signal.SIGTERM
    assert servers(shop.folder) == []


def until(text: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines up to the one with the text."""
    for line in lines:
        yield line
        if text in line:
            return
    pytest.fail(f"no line with {text!r}")
