"""Export writes cheaper ways to answer, measures what they cost, and refuses those above the guard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.columns import ITEM_HASH, label_column
from contract.dataset import EncodedDataset
from contract.errors import ExportError
from contract.graph_names import CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE
from features.online.request_encoder import RankRequest
from pipeline.console import lines_to
from pipeline.export.cheaper_stages import PRIOR_WEIGHT, StageCost, StageGuard, cascaded
from pipeline.flow.steps import build_features, evaluate_model, export_model, publish_model, train_model
from pipeline.project.project_config import read_config
from serving.graph.served_model import RankingModel
from serving.graph.stages import PRIOR_KEY
from tests.pipeline.tiny_project import write_project

pytestmark = pytest.mark.slow


def test_export_says_what_cheaper_ways_cost_and_publishes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_project(tmp_path)
    stages = "export.stages={cascade: 8, fewer_experts: 1, fallback: true, guard: {ndcg: 1, auc: 1, fallback: 1}}"
    config = read_config(path, [stages, "model.gate={name: top_k, k: 2}", "train.epochs=1"])
    build_features(config)
    run = train_model(config)
    said: list[str] = []
    with lines_to(said.append):
        export_model(run)
    told = [line.partition("export: ")[2] for line in said if " -> " in line]
    assert {line.partition(":")[0] for line in told} == {"cascade to 8 of 32", "fewer experts", "fallback"}
    assert {line.split()[-4] for line in told} == {"auc", "ndcg@10"}
    evaluate_model(run)
    model = RankingModel.open(publish_model(run).bundle)
    answer = model.rank(RankRequest(1, list(range(1, 31))))
    assert (answer.stage, answer.refined) == ("cascade", 8)
    assert model.graphs.stages.fewer is not None
    check_prior(config.features_dir, run.export_dir)
    strict = replace(run, config=read_config(path, ["export.stages={cascade: 1, guard: {ndcg: 0, auc: 0}}"]))
    with pytest.raises(ExportError, match=r"cascade to 1 of 4: like .*allowed: 0 less"):
        export_model(strict)
    export_model(replace(run, config=read_config(path)))
    assert not any((run.export_dir / name).exists() for name in (CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE))


def check_prior(features: Path, export: Path) -> None:
    """Each item's prior is its smoothed mean over training rows."""
    rows = EncodedDataset.open(features / "train").read([ITEM_HASH, label_column("like")])
    hashes, labels = rows[ITEM_HASH].to_numpy(), rows[label_column("like")].to_numpy()
    prior = pq.read_table(export / ITEM_PRIOR_FILE)
    by_item = dict(zip(prior[PRIOR_KEY].to_pylist(), prior["like"].to_pylist(), strict=True))
    assert by_item[0] == pytest.approx(labels.mean(), abs=1e-6)
    mine = labels[hashes == hashes[0]]
    expected = (mine.sum() + PRIOR_WEIGHT * labels.mean()) / (len(mine) + PRIOR_WEIGHT)
    assert by_item[int(hashes[0])] == pytest.approx(expected, abs=1e-6)


def test_a_cascades_scores_are_the_models_for_the_best_of_each_list() -> None:
    cheap, whole = np.array([1, 3, 2, 9, 7, 8], np.float32), np.linspace(0, 0.5, 6, dtype=np.float32)
    assert cascaded(cheap, whole, 2, 3).tolist() == pytest.approx([1, 0.1, 0.2, 0.3, 7, 0.5])


def test_each_stage_has_its_guard() -> None:
    guard = StageGuard(ndcg=0.01, auc=0.02, fallback=0.3)
    stages, metrics = ("fewer experts", "fallback"), ("auc", "ndcg@10")
    costs = [StageCost(stage, "like", metric, 0.9, 0.5) for stage in stages for metric in metrics]
    assert [guard.of(cost) for cost in costs] == [0.02, 0.01, 0.3, 0.3]
    guard.require(StageCost("fallback", "like", "auc", 0.8, 0.6))
    with pytest.raises(ExportError, match=r"fallback: like auc 0.9000 -> 0.5000 \(allowed: 0.3 less\)"):
        guard.require(*costs[2:])
