"""A table from another domain, without users, items or times, trains, exports and serves from a short recipe."""

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ModelNotFoundError
from features.online.request_encoder import RankRequest, RequestEncoder
from pipeline.flow.steps import build_features, evaluate_model, export_model, publish_model, train_model
from pipeline.project.project_config import read_config
from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.store.model_source import open_source
from tests.patience import PATIENCE

RECIPE = Path(__file__).parent / "income.yaml"


def write_census(path: Path, rows: int = 3000) -> None:
    """People in the shape of the Adult census table; income follows age, hours, education and occupation."""
    draw = np.random.default_rng(5)
    age, hours = draw.integers(17, 80, rows), draw.normal(40, 10, rows)
    education, occupation = draw.integers(0, 5, rows), draw.integers(0, 8, rows)
    odds = (age - 45) / 12 + (hours - 40) / 8 + education - 2 + (occupation * 3 % 8 - 4) / 2
    rich = draw.random(rows) < 1 / (1 + np.exp(-odds))
    table = {
        "age": age,
        "hours": [None if i % 17 == 0 else float(h) for i, h in enumerate(hours)],
        "workclass": [None if i % 11 == 0 else f"class {i % 4}" for i in range(rows)],
        "education": [f"school {e}" for e in education],
        "occupation": [f"job {o}" for o in occupation],
        "relation": [("husband", "wife", "own child")[i] for i in draw.integers(0, 3, rows)],
        "income": [">50K" if r else "<=50K" for r in rich],
    }
    pq.write_table(pa.table(table), path)


@pytest.mark.slow
def test_a_census_table_trains_exports_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(RECIPE.read_text(encoding="utf-8").splitlines()) < 40
    shutil.copy(RECIPE, tmp_path)
    write_census(tmp_path / "census.parquet")
    monkeypatch.chdir(tmp_path)
    far = "memory://census/models"
    config = read_config(Path("income.yaml"), [f"mirror={far}"])
    build_features(config)
    run = train_model(config)
    export_model(run)
    evaluate_model(run)
    made = publish_model(run)
    assert made.metrics["rich"]["auc"] > 0.8
    assert open_source(far).current(config.name) == 1
    # What an operator does there later is not undone by a repetition.
    fsspec.filesystem("memory").rm(f"/census/models/{config.name}/current")
    assert publish_model(run) == made
    with pytest.raises(ModelNotFoundError):
        open_source(far).current(config.name)
    columns: dict[str, list[object]] = {
        "age": [30, 60], "hours": [None, 55.0], "workclass": [None, "class 1"], "education": ["school 0", "school 4"],
        "occupation": ["job 1", "never seen"], "relation": ["wife", "husband"],
    }  # fmt: skip
    encoded = RequestEncoder.open(made.bundle).encode(RankRequest(None, [0, 1], item_features=columns))
    assert encoded.inputs.candidate.rows == 2
    server = start(ServerSettings(store=made.store, port=0))
    try:
        with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
            answer = client.rank(user=None, items=[0, 1], item_features=columns)
    finally:
        server.stop()
    young, old = (answer.predictions["rich"][place] for place in (0, 1))
    assert 0 < young < old < 1
