"""Each recipe of the cookbook fits tables of its kind, and some of them train."""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli.main import main
from pipeline.flow import steps
from pipeline.project.project_config import read_config
from tests.pipeline.three_sets import write_news, write_shop
from tests.pipeline.unseen_tables import write_ads, write_census, write_jobs, write_ratings, write_video

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cookbook.md"
BLOCKS = dict(
    re.findall(r"^```(?:yaml|python) (\S+)\n((?:.*\n)*?)```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
)
SHORT = ["train.epochs=1", "train.batch_size=256", "evaluate.replicates=50", "evaluate.slice_replicates=50"]


def write_domains(directory: Path, rows: int = 2_500) -> None:
    """Clicks of two domains, which the same items get for different reasons."""
    draw = np.random.default_rng(21)
    users, items = draw.integers(0, 100, rows), draw.integers(0, 60, rows)
    searched = draw.random(rows) < 0.4
    likely = np.where(searched, (items % 4 == 0) * 0.5, ((users + items) % 3 == 0) * 0.5) + 0.1
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    table = {
        "user": users,
        "item": [f"i{n}" for n in items],
        "at": [begin + timedelta(seconds=float(s)) for s in np.sort(draw.uniform(0, 20 * 86_400, rows))],
        "domain": np.where(searched, "search", "feed"),
        "device": [f"d{n % 3}" for n in users],
        "clicked": draw.random(rows) < likely,
    }
    pq.write_table(pa.table(table), directory / "log.parquet")


TABLES: dict[str, Callable[[Path], None]] = {
    "shop.yaml": write_shop,
    "news.yaml": write_news,
    "video.yaml": write_video,
    "jobs.yaml": write_jobs,
    "ads.yaml": write_ads,
    "ratings.yaml": write_ratings,
    "two_domains.yaml": write_domains,
    "census.yaml": write_census,
    "beside.yaml": write_ratings,
    "nightly.yaml": write_domains,
}


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page, which commands run in."""
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_ten_recipes_and_tables_for_each() -> None:
    assert len(TABLES) == 10
    assert set(TABLES) == {name for name in BLOCKS if name.endswith(".yaml")}


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_of_the_cookbook_fits_its_tables(name: str, kitchen: Path) -> None:
    TABLES[name](kitchen)
    assert main(["check", name]) == 0
    read_config(kitchen / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ads.yaml", "two_domains.yaml"])
def test_a_recipe_of_the_cookbook_trains(name: str, kitchen: Path) -> None:
    TABLES[name](kitchen)
    config = read_config(kitchen / name, SHORT)
    steps.build_features(config)
    run = steps.train_model(config)
    steps.export_model(run)
    assert set(steps.evaluate_model(run).result["metrics"]) == {task.name for task in config.data.tasks}


def test_trees_beside_a_model_are_judged_by_the_command_on_the_page(kitchen: Path) -> None:
    TABLES["beside.yaml"](kitchen)
    steps.build_features(read_config(kitchen / "beside.yaml"))
    subprocess.run([sys.executable, "beside.py"], cwd=kitchen, check=True)
    (line,) = re.findall(r"^moerank (evaluate .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert main(line.split()) == 0
    assert (kitchen / "trees" / "evaluation.json").is_file()
