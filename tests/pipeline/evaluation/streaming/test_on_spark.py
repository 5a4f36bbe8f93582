"""A Spark data frame is judged by the same functions; skipped where PySpark or Java is missing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import DataError
from pipeline.cli.main import main
from pipeline.evaluation.intervals import Bootstrap
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation
from pipeline.evaluation.streaming.on_spark import pass_on_spark, spark_session
from pipeline.evaluation.streaming.overall import overall
from pipeline.evaluation.streaming.stream_state import Budget, passed
from pipeline.evaluation.task_metrics import evaluate_tasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17, and there is no java on the path"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pytest.importorskip("pyspark.sql", reason="PySpark is not installed: pip install pyspark==4.3.0")
    with spark_session("local[2]") as session:
        yield session


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    scores = rng.random((4000, 1)).astype(np.float32)
    labels = (rng.random((4000, 1)) < scores).astype(np.float32)
    user = rng.integers(1, 300, 4000).astype(np.uint64)
    rows = Predictions(
        {"like": "binary"}, labels, np.ones_like(labels), scores, user, user, np.zeros(4000, dtype=np.int64)
    )
    rows.save(tmp_path / "scored.parquet")
    return tmp_path / "scored.parquet"


@pytest.mark.parametrize("budget", [Budget(), Budget(rows=500, units=64)])
def test_partitions_merge_into_what_one_machine_says(spark: Any, scored: Path, budget: Budget) -> None:
    state = pass_on_spark(spark.read.parquet(str(scored)).repartition(4), budget=budget)
    here = passed([load_predictions(scored)], budget)
    assert state.seen == here.seen == 4000
    assert state.is_whole == here.is_whole
    (kept, _), (mine, _) = state.users.finish(), here.users.finish()
    bootstrap = Bootstrap(kept.users().count, 50)
    ours, theirs = (evaluate_tasks(rows.by_task(rows.users()), bootstrap).scores["like"] for rows in (mine, kept))
    for metric, estimate in ours.items():
        assert theirs[metric].value == pytest.approx(estimate.value, rel=1e-9), metric
    if not here.is_whole:
        one, other = (
            overall(each, {"like": found}, {"like": "binary"}, bootstrap).scores["like"]
            for each, found in ((here, ours), (state, theirs))
        )
        assert {name: each.value for name, each in other.items()} == pytest.approx(
            {name: each.value for name, each in one.items()}, rel=1e-9
        )


def test_a_missing_column_is_named_before_any_executor_starts(spark: Any, scored: Path) -> None:
    with pytest.raises(DataError, match="the data frame has no column 'label__like'"):
        pass_on_spark(spark.read.parquet(str(scored)).drop("label__like"))


def test_the_command_gives_on_spark_what_it_gives_here(spark: Any, scored: Path, tmp_path: Path) -> None:
    spark.read.parquet(str(scored)).repartition(3).write.parquet(str(tmp_path / "parts"))
    spark.stop()
    line = ["evaluate", "--predictions", str(tmp_path / "parts"), "--replicates", "50"]
    for engine, more in (("spark", ["--engine", "spark", "--master", "local[2]"]), ("here", [])):
        assert main([*line, *more, "--out", str(tmp_path / engine)]) == 0
    there, here = (Evaluation.load(tmp_path / engine).tasks["like"] for engine in ("spark", "here"))
    assert list(there) == list(here)
    for metric, estimate in here.items():
        assert there[metric].value == pytest.approx(estimate.value, rel=1e-9), metric
    assert (tmp_path / "spark" / "report.html").is_file()
