"""All pages in a real browser: nothing on the console, no request refused, and pictures of each to look at.

Every page carries a policy that forbids all requests; what would be asked for stands on the browser's console. The
pictures lie in build/screenshots: a wide window, a phone, and dark.
"""

import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from features.quality.histograms import histogram
from features.quality.quality_page import quality_page
from features.quality.quality_report import Distribution, FeatureProfile, QualityReport
from pipeline.evaluation.comparing.compare import compare_models
from pipeline.evaluation.drift import Side, measure_drift
from pipeline.evaluation.importance import importance
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.quality_gate import GateFinding
from pipeline.report.comparison_page import write_comparison_page
from pipeline.report.days_page import write_days_page
from pipeline.report.drift_charts import write_drift_page
from pipeline.report.report_page import write_report
from pipeline.report.runs_page import RunFigures, write_runs_page
from pipeline.report.tuning_page import SearchFigures, SeedFigures, TrialFigures, write_tuning_page
from serving.graph.engine import Engine
from tests.patience import PATIENCE
from tests.pipeline.conftest import Judged

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]
PICTURES = Path(__file__).resolve().parents[3] / "build" / "screenshots"
VIEWS = {"wide": ("1200,3600", "1"), "phone": ("390,3600", "1"), "dark": ("1200,3600", "0")}


def look(page: Path, picture: Path, size: str, scheme: str) -> list[str]:
    """Open a page, keep a picture, and return what the browser's console said."""
    profile = picture.with_suffix(".profile")
    line = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
        "--enable-logging=stderr", "--v=0", f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={size}",
        f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=3 * PATIENCE)
    shutil.rmtree(profile, ignore_errors=True)
    return re.findall(r"CONSOLE:?\d*\]? .*", done.stderr)


@pytest.fixture(scope="module")
def pages(judged: Judged, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every page with everything on it."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(judged.out, folder / "report")
    engine = Engine(judged.bundle)
    importance(engine, judged.test, engine.schema, permutations=2).save(folder / "report")
    drift = measure_drift(judged.bundle, Side(judged.train, "train"), Side(judged.test, "test"))
    drift.save(folder / "report")
    gate = [GateFinding(rule="like.auc >= 0.9", passed=False, text="like.auc is 0.8, but >= 0.9 is asked for")]
    (folder / "report" / "gate.json").write_text(f"[{gate[0].model_dump_json()}]", encoding="utf-8")
    found = judged.evaluation
    days = [(date(2026, 11, day), found) for day in range(10, 26)]
    runs = [
        RunFigures("shop", f"r{day}", f"2026-11-{day} 03:00", day, day == 15, "published", found.tasks, found.units, "")
        for day in range(10, 16)
    ]
    age = FeatureProfile(
        kind="dense", null_rate=0.1, low=0, high=99, bins=8, distribution=Distribution(shares=(0.5, 0.5)),
        histogram=histogram(np.arange(100.0) ** 2), psi=0.3,
    )  # fmt: skip
    rates = {"like": {f"2026-11-{day}": 0.2 + day / 100 for day in range(10, 20)}}
    quality = QualityReport(
        rows=100, duplicates=0, late=0, cutoff_ms=0, features={"age": age}, label_rates=rates, leaks=()
    )
    (folder / "quality.html").write_text(quality_page(quality), encoding="utf-8")
    (folder / "days").mkdir()
    quick = EvaluateConfig(replicates=100, slice_replicates=50, slice_by=("tab",))
    three = [judged.bundle, judged.worse, judged.out / "predictions.parquet"]
    return {
        "comparison": write_comparison_page(compare_models(three, judged.test, config=quick), folder),
        "report": write_report(folder / "report"),
        "drift": write_drift_page(drift, folder, "tiny/1"),
        "days": write_days_page(folder / "days", "shop", days, {date(2026, 11, 20): ["a bound"]}, found.units),
        "runs": write_runs_page(folder, runs),
        "quality": folder / "quality.html",
        "tuning": write_tuning_page(folder, searched()),
    }


def searched() -> SearchFigures:
    """Twenty trials over a rate, a width and a gate, of which some were pruned and one failed."""
    trials = []
    for number in range(20):
        values = {"train.learning_rate": 10 ** (-4 + number / 10), "model.experts": 2 + number % 3, "model.gate": ["a"]}
        state = "failed" if number == 7 else "pruned" if number % 3 == 2 else "complete"
        value = None if number == 7 else 0.7 + 0.01 * np.sin(number)
        shown = {path: str(value) for path, value in values.items()}
        trials.append(TrialFigures(number, state, value, 2, shown, values, "k is too large" if number == 7 else ""))
    seeds = [SeedFigures("like", "auc", 0.7, 0.71, 0.01, 0.005, 0.015, 0.01, "better")]
    return SearchFigures(
        "shop", "mean", trials, trials[3], {"model.experts": 0.6}, frozenset({"train.learning_rate"}), seeds, 5,
        "the test rows", "moerank run shop.yaml --set model.experts=3",
    )  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["report", "comparison", "drift", "days", "runs", "quality", "tuning"])
def test_a_page_says_nothing_on_the_console_and_asks_for_nothing(
    pages: dict[str, Path], name: str, view: str
) -> None:  # fmt: skip
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / f"{name}-{view}.png"
    assert look(pages[name], picture, *VIEWS[view]) == []
    assert picture.stat().st_size > 10_000
    assert "default-src 'none'" in pages[name].read_text(encoding="utf-8")


def test_a_page_that_asks_for_something_is_seen(pages: dict[str, Path], tmp_path: Path) -> None:
    page = pages["runs"].read_text(encoding="utf-8").replace("</main>", '<img src="https://example.com/a.png"></main>')
    (tmp_path / "asking.html").write_text(page, encoding="utf-8")
    (told,) = look(tmp_path / "asking.html", tmp_path / "asking.png", *VIEWS["phone"])
    assert "violates the following Content Security Policy directive" in told
