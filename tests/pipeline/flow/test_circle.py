"""The README's circle runs as written: serve, log, click, learn from the log, publish, serve the next version."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.columns import label_column
from contract.dataset import EncodedDataset
from tests.patience import PATIENCE
from tests.pipeline.flow.shop import ROOT, command, environment_of
from tests.ports import free_port

# Only against a hang: on a busy machine it takes six minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
BASH = shutil.which("bash") or "/bin/bash"
USERS, FILMS, EVENTS = 943, 1682, 6000


def films(folder: Path) -> None:
    """Made-up ratings in the form of MovieLens-100K."""
    draw = np.random.default_rng(2)
    data = folder / "data" / "movielens"
    data.mkdir(parents=True)
    user, item = draw.integers(1, USERS + 1, EVENTS), draw.integers(1, FILMS + 1, EVENTS)
    seconds = 1_700_000_000 + np.sort(draw.integers(0, 10_000_000, EVENTS))
    rating = np.clip(np.round(3.5 + draw.normal(size=FILMS + 1)[item] + draw.normal(size=EVENTS)), 1, 5)
    events = {
        "user_id": user, "item_id": item, "rating": rating,
        "event_time": pa.array(seconds * 1000).cast(pa.timestamp("ms", "UTC")),
    }  # fmt: skip
    kinds = draw.choice(["student", "writer", "other"], USERS)
    users = {
        "user_id": np.arange(1, USERS + 1), "age": draw.integers(18, 70, USERS),
        "gender": draw.choice(["F", "M"], USERS), "occupation": kinds,
    }  # fmt: skip
    items = {
        "item_id": np.arange(1, FILMS + 1), "release_year": draw.integers(1950, 1999, FILMS),
        "genres": [["Drama", "War"][: 1 + number % 2] for number in range(FILMS)],
    }  # fmt: skip
    for name, columns in (("events", events), ("users", users), ("items", items)):
        pq.write_table(pa.table(columns), data / f"{name}.parquet")


def circle() -> str:
    """The lines of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"## The circle\n.*?```text\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_circle_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    films(tmp_path)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    environment = environment_of(tmp_path)
    first = command(tmp_path, environment, "run", "pipeline/recipes/movielens.yaml", "--set", "train.epochs=1")
    assert first.returncode == 0, first.stderr
    lines = circle()
    assert len(lines.splitlines()) == 8
    port = str(free_port())
    script = lines.replace("50051", port).replace("moerank serve", f"moerank serve --port {port}")
    script = script.replace("moerank rank", f"moerank rank --target 127.0.0.1:{port}")
    # Where a person waits some seconds, a busy machine is waited for: until the server listens, the log has a file and,
    # after some seconds, all, and the new version answers.
    script = script.replace("&\n", f"&\nuntil (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.2; done\n")
    script = script.replace(
        "sleep 4; python", "until compgen -G 'log/*/date=*/*/*.parquet'; do sleep 0.2; done; sleep 3; python"
    )
    script = re.sub(
        "sleep 4; (moerank rank.*)", r"until \1 | tee answer; grep 'version 2' answer; do sleep 1; done", script
    )
    assert "sleep 4" not in script
    # The rows of two seconds are enough to learn from.
    script = script.replace("--seconds 5", "--seconds 2")
    # A line that fails must not leave the server behind: it would hold the output open until the test's own limit.
    script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    running = subprocess.Popen(
        [BASH, "-e", "-c", script], cwd=tmp_path, env=environment | {"PATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        printed = running.communicate(timeout=10 * PATIENCE)[0]
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, printed
    assert "version 2" in printed, printed
    clicks = pq.read_table(tmp_path / "clicks.parquet")
    features = tmp_path / "runs" / "movielens" / "features"
    trained = [EncodedDataset.open(features / split) for split in ("train", "valid", "test")]
    labels = [part.read([label_column("like")])[label_column("like")].to_numpy() for part in trained]
    assert float(np.concatenate(labels).sum()) == len(clicks)
