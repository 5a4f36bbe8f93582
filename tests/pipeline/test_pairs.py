"""Every pair of gate and architecture, and every other part of a model, trains, is judged, and exports with parity.

``make test`` takes every gate with MMoE, and every architecture with three gates; ``make pairs`` takes all pairs.
"""

from pathlib import Path
from typing import Any

import pytest

from contract.errors import ConfigError
from contract.schema import DenseSpec, IdSpec, Schema
from features.batches import BatchReader
from models.experts.prune_experts import kept_experts
from models.export import export
from models.export.prune import expert_use, prune
from models.ranker import Ranker
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.export.pruning import merge_on
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema(
    features=(
        IdSpec(name="user", kind="id", side="user", rows=40),
        IdSpec(name="item", kind="id", side="item", rows=30),
        DenseSpec(name="age", side="user", encoding="standardise"),
        DenseSpec(name="price", side="item", encoding="standardise"),
    )
)
SIZES: dict[str, Any] = {"embedding_dim": 4, "experts": 3, "expert_widths": (8, 4), "tower_widths": (), "dropout": 0.0}
GATES: dict[str, dict[str, Any]] = {
    "softmax": {},
    "dselect_k": {"k": 2},
    "top_k": {"k": 2},
    "noisy_top_k": {"k": 2},
    "hash": {"feature": "item", "assignment": "balanced"},
    "comet": {"k": 2},
    "gumbel": {},
    "dense_to_sparse": {"k": 1, "switch_step": 2},
    "top_p": {"p": 0.5, "k": 2},
    "top_any": {},
    "mask_moe": {"feature": "item", "k": 2, "rare": 60},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mmoe": {},
    "mmoe+shared": {"shared_experts": 2},
    "mmoe+private+shared": {"private_experts": 1, "shared_experts": 1},
    "cgc": {},
    "ple": {"levels": 2},
    "stem": {},
    "home": {"groups": {"taste": ("like",), "stars": ("rating",)}, "feature_rank": 2},
}
HISTORY = (
    IdSpec(name="watched", kind="id_list", side="user", rows=30, table="item", max_length=10),
    IdSpec(name="authors", kind="id_list", side="user", rows=8, table="author", max_length=10),
    IdSpec(name="ages", kind="id_list", side="user", rows=42, max_length=10),
    IdSpec(name="author", kind="id", side="item", rows=8),
    *(DenseSpec(name=f"text[{n}]", side="item", encoding="standardise", vector="text", half=True) for n in range(3)),
)
PART_SCHEMA = small_schema(features=(*SCHEMA.features, *HISTORY))
BESIDE = {"authors": "author", "ages": None}
DIN: dict[str, Any] = {"watched": {"name": "din", "beside": BESIDE}}
PARTS: dict[str, dict[str, Any]] = {
    "din": {"sequences": DIN},
    "din+search": {"sequences": {"watched": {"name": "din", "beside": BESIDE, "search": "authors", "normalise": True}}},
    "sim": {"sequences": {"watched": {"name": "sim", "beside": BESIDE, "search": "authors"}}},
    "ppnet": {"personal_gates": {"by": ["user", "item"]}, "tower_widths": (6,)},
    "epnet": {"interaction": {"name": "epnet", "by": ["author"]}},
    "monotone": {"monotone": {"price": "decreasing"}},
    "members": {"members": 2, "bottom": (6,), "gate": {"name": "top_k", "k": 2}},
    "members+monotone+ppnet": {
        "members": 2,
        "monotone": {"price": "decreasing"},
        "personal_gates": {"by": ["user", "item"]},
        "tower_widths": (6,),
    },
    "aw_moe": {"sequences": DIN, "routing": "history", "history_contrast": {}, "gate": {"name": "top_k", "k": 2}},
    "expert_dropout": {"gate": {"name": "top_k", "k": 2, "expert_dropout": 0.2}},
    "vector+projection": {"interaction": {"name": "projection", "to": {"text": 2, "author": 3}}},
    "vector+autoint": {"interaction": {"name": "autoint"}},
}
LOSSES: dict[str, dict[str, Any]] = {
    **{n: {"within_user": {"like": {"name": n, "weight": 0.3}}} for n in ("pairwise", "listwise", "jrc")},
    **{n: {"losses": {"rating": {"name": n}}} for n in ("huber", "quantile")},
    "focal": {"losses": {"like": {"name": "focal"}}},
    "class weight": {"losses": {"like": {"name": "cross_entropy", "positive_weight": 3.0}}},
    "uncertainty": {"weighting": {"name": "uncertainty"}},
}
PARTS_IN_EVERY_RUN = ("aw_moe",)
IN_EVERY_RUN = ("softmax", "dselect_k", "top_k")


def pairs() -> list[Any]:
    return [
        pytest.param(
            architecture,
            gate,
            id=f"{architecture}-{gate}",
            marks=() if in_every_run(architecture, gate) else (pytest.mark.slow, pytest.mark.pairs),
        )
        for architecture in ARCHITECTURES
        for gate in GATES
    ]


def in_every_run(architecture: str, gate: str) -> bool:
    return architecture == "mmoe" or ("+" not in architecture and gate in IN_EVERY_RUN)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


@pytest.fixture(scope="module")
def part_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("part_features"), PART_SCHEMA)


def config(architecture: str, gate: str) -> Any:
    named = {"name": architecture.split("+", maxsplit=1)[0], **ARCHITECTURES.get(architecture, {})}
    # STEM deals an embedding's columns out to two tasks and a shared part.
    sizes = SIZES | ({"embedding_dim": 12} if architecture == "stem" else {})
    return small_config(**sizes, architecture=named, gate={"name": gate, **GATES[gate]})


def train_judge_and_export(
    model: Any, features: Path, run: Path, schema: Schema = SCHEMA, **settings_of_train: Any
) -> dict[str, Any]:
    rates = {"epochs": 1, "batch_size": 512, "learning_rate": 0.01, "embedding_learning_rate": 0.1}
    settings = TrainConfig.model_validate(rates | settings_of_train)
    result = train(features, model, settings, run / "run", lambda _: None)
    ranker = load_ranker(run / "run", schema)
    bundle = run / "export"
    bundle.mkdir()
    sample = next(BatchReader(features / "valid", schema, 256).epoch()).inputs
    report = export(ranker, schema, sample, bundle / "model.onnx")
    assert report.rows_checked > 2000
    assert report.worst_difference <= 1e-5
    schema.save(bundle)
    quick = EvaluateConfig(replicates=50, slice_replicates=50)
    judged = evaluate(bundle, features / "valid", None, run / "evaluation", config=quick)
    assert judged.tasks["like"]["auc"].value == pytest.approx(result["metrics"]["like"]["auc"], abs=1e-4)
    assert judged.tasks["rating"]["rmse"].value == pytest.approx(result["metrics"]["rating"]["rmse"], abs=1e-4)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "gate"), pairs())
def test_a_pair_trains_is_judged_and_exports_with_parity(
    architecture: str, gate: str, features: Path, tmp_path: Path
) -> None:
    train_judge_and_export(config(architecture, gate), features, tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=() if part in PARTS_IN_EVERY_RUN else (pytest.mark.slow, pytest.mark.pairs))
        for part in PARTS
    ],
)
def test_a_part_trains_is_judged_and_exports_with_parity(part: str, part_features: Path, tmp_path: Path) -> None:
    train_judge_and_export(small_config(**SIZES | PARTS[part]), part_features, tmp_path, PART_SCHEMA)


@pytest.mark.slow
@pytest.mark.pairs
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_trains_is_judged_and_exports_with_parity(loss: str, tmp_path: Path) -> None:
    schema = small_schema(features=SCHEMA.features, user_key="user")
    features = write_features(tmp_path / "features", schema, rows_per_user=16)
    train_judge_and_export(config("mmoe", "top_k"), features, tmp_path, schema, **LOSSES[loss])


@pytest.mark.slow
@pytest.mark.pairs
def test_a_taught_model_is_judged_and_exports_with_parity(features: Path, tmp_path: Path) -> None:
    teacher, pupil = tmp_path / "teacher", tmp_path / "pupil"
    for run in (teacher, pupil):
        run.mkdir()
    train_judge_and_export(config("mmoe", "softmax"), features, teacher)
    train_judge_and_export(config("mmoe", "top_k"), features, pupil, teacher={"run": teacher / "run", "weight": 0.5})


@pytest.mark.slow
@pytest.mark.pairs
@pytest.mark.parametrize("gate", ["top_k", "mask_moe", "hash"])
def test_a_model_with_pruned_experts_exports_with_parity(gate: str, features: Path, tmp_path: Path) -> None:
    model = small_config(**SIZES, gate={"name": gate, **GATES[gate]}, gate_scope="shared")
    train_judge_and_export(model, features, tmp_path)
    ranker = load_ranker(tmp_path / "run", SCHEMA)
    # A row takes two experts at most, so that not all three have nine rows in ten.
    use = expert_use(ranker, (batch.inputs for batch in BatchReader(features / "valid", SCHEMA, 512).epoch()))
    assert prune(ranker, use, 0.9).count
    sample = next(BatchReader(features / "valid", SCHEMA, 256).epoch()).inputs
    assert export(ranker, SCHEMA, sample, tmp_path / "pruned.onnx").worst_difference <= 1e-5


@pytest.mark.slow
@pytest.mark.pairs
def test_a_model_with_merged_experts_exports_with_parity(features: Path, tmp_path: Path) -> None:
    train_judge_and_export(config("mmoe", "softmax"), features, tmp_path)
    ranker = load_ranker(tmp_path / "run", SCHEMA)
    (bank,) = ranker.network.typed_levels[0].typed_banks
    bank.experts = kept_experts(bank.experts, [0, 0, 2])
    found = merge_on(ranker, features / "valid", 0.001, lambda _: None)
    assert len(found["groups"][0]) == 1
    sample = next(BatchReader(features / "valid", SCHEMA, 256).epoch()).inputs
    assert export(ranker, SCHEMA, sample, tmp_path / "merged.onnx").worst_difference <= 1e-5


@pytest.mark.slow
def test_shared_bottom_trains_is_judged_and_exports_and_takes_no_gate(features: Path, tmp_path: Path) -> None:
    train_judge_and_export(small_config(**SIZES, architecture={"name": "shared_bottom"}), features, tmp_path)
    for gate in sorted(set(GATES) - {"dselect_k", "top_k"}):
        with pytest.raises(ValueError, match=f"shared_bottom has no experts to choose from, so gate {gate} has no use"):
            config("shared_bottom", gate)


@pytest.mark.parametrize("architecture", ["cgc", "ple", "home"])
def test_one_gate_for_all_tasks_is_refused_where_tasks_have_experts_of_their_own(architecture: str) -> None:
    model = small_config(architecture={"name": architecture}, gate_scope="shared")
    with pytest.raises(ConfigError, match="gate_scope is shared"):
        Ranker(SCHEMA, model)
