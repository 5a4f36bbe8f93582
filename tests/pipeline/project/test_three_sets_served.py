"""Three sets as they lie become models that one server answers for: `init`, the steps, `serve`, and the client."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.flow import steps
from pipeline.project.project_config import read_config
from serving.client.blocking_client import RankingClient
from tests.patience import PATIENCE
from tests.pipeline.three_sets import write_export, write_news, write_shop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[3]
SHORT = [
    "train.epochs=1", "train.batch_size=512", "model.experts=2", "model.expert_widths=[8]", "model.embedding_dim=4",
    "evaluate.replicates=50", "evaluate.slice_replicates=50",
]  # fmt: skip


@dataclass(frozen=True)
class RawSet:
    """Who writes a set, the words after `moerank init`, a request of its keys, and the tasks to be answered."""

    write: Callable[[Path], None]
    words: Sequence[str]
    user: str | int
    items: list[str] | list[int]
    context: dict[str, Any]
    tasks: set[str]


SETS = {
    "shop": RawSet(
        write_shop,
        ("log.parquet", "--users", "customers.parquet", "--items", "catalog.parquet"),
        "u-0007",
        ["SKU-000001", "SKU-000002", "SKU-000079"],
        {"device_os": "ios", "position": 3},
        {"click", "purchase"},
    ),
    "news": RawSet(
        write_news,
        ("impressions.parquet", "--labels", "clicks.parquet"),
        7,
        [1, 2, 99],
        {"topic": "t1", "slot": 4},
        {"click", "click_dwell_s"},
    ),
    "export": RawSet(
        write_export, ("table",), 7, [1, 2, 49], {"city": "c1", "f_00": 0.5}, {"eta_minutes", "basket_eur"}
    ),
}


def publish(folder: Path, raw: RawSet) -> Path:
    """From the files to a published version; the recipe is as `init` wrote it, but for a small network."""
    raw.write(folder)
    assert main(["init", *raw.words]) == 0
    assert len(Path("moerank.yaml").read_text(encoding="utf-8").splitlines()) <= 40
    config = read_config(Path("moerank.yaml"), SHORT)
    steps.build_features(config)
    run = steps.train_model(config)
    steps.export_model(run)
    steps.evaluate_model(run)
    steps.publish_model(run)
    return config.store


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server that has the models of all three sets."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name, raw in SETS.items():
            folder = tmp_path_factory.mktemp("raw") / name
            folder.mkdir()
            patch.chdir(folder)
            shutil.copytree(publish(folder, raw), store, dirs_exist_ok=True)
    line = [sys.executable, "-m", "pipeline", "serve", str(store), "--host", "127.0.0.1", "--port", "0"]
    served = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert served.stderr is not None
    try:
        said = next(line for line in served.stderr if "serving" in line)
        yield "127.0.0.1:" + said.strip().rpartition(":")[2]
    finally:
        served.terminate()
        served.wait(timeout=PATIENCE)
        served.stderr.close()


@pytest.mark.parametrize("name", SETS)
def test_a_set_goes_from_files_as_they_lie_to_an_answered_request(name: str, target: str) -> None:
    raw = SETS[name]
    with RankingClient(target, seconds=PATIENCE) as client:
        answer = client.rank(user=raw.user, items=raw.items, context=raw.context, model=name)
    assert sorted(answer.ranked) == sorted(raw.items)
    assert set(answer.predictions) == raw.tasks
    assert not answer.unknown_user
    assert list(answer.unknown_items) == []
    assert all(np.isfinite(answer.predictions[task]).all() for task in raw.tasks)
