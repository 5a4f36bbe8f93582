"""What export does beyond the graph: smaller numbers behind their rule, calibration, a disk without room."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from contract.errors import ExportError
from models.export import export
from models.export.onnx_file import write_onnx
from models.export_graph.serving_graph import ServingGraph
from pipeline.export.post_export import ExportConfig, apply_if_equal, calibrate_on, drop_unread_tables, refuse_losses
from pipeline.export.pruning import prune_on
from tests.models.small import inputs, lively_ranker, small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()


def figures(metric: str, whole: float, small: float) -> dict[str, dict[str, object]]:
    return {"like": {"metric": metric, "before": whole, "after": small}}


@pytest.mark.parametrize(
    ("metric", "whole", "small"),
    [("auc", 0.75, 0.7496), ("auc", 0.75, 0.8), ("rmse", 1.0, 1.0009), ("rmse", 1.0, 0.9)],
)
def test_small_losses_are_accepted(metric: str, whole: float, small: float) -> None:
    refuse_losses("int8 experts", figures(metric, whole, small))


@pytest.mark.parametrize(
    ("metric", "whole", "small"), [("auc", 0.75, 0.7494), ("rmse", 1.0, 1.0011), ("auc", 0.75, float("nan"))]
)
def test_larger_losses_are_refused_with_the_figures(metric: str, whole: float, small: float) -> None:
    with pytest.raises(ExportError, match=f"like: {metric} {whole:.5f} -> {small:.5f}"):
        refuse_losses("int8 experts", figures(metric, whole, small))


def test_without_labels_nothing_is_accepted() -> None:
    with pytest.raises(ExportError, match="no labels"):
        refuse_losses("int8 experts", {})


def test_pruning_is_refused_where_it_costs_too_much_and_tells_what_it_saves(world: tuple[Path, Path]) -> None:
    said: list[str] = []
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}, gate_scope="shared"))
    gate = ranker.network.typed_gates[0]
    with torch.no_grad():
        gate.logit_rows()[1][0] = -1e4
    assert prune_on(ranker, world[1], None, said.append) == {}
    told = prune_on(ranker, world[1], 0.0, said.append)
    assert told["dropped"] == ((0,),)
    assert told["figures"]["like"]["before"] == pytest.approx(told["figures"]["like"]["after"], abs=1e-6)
    assert said[-1].startswith("pruned 1 of 4 experts with ")
    with pytest.raises(ExportError, match=r"^pruned experts cost too much"):
        prune_on(ranker, world[1], 0.9, said.append)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dense graph of a ranker, and encoded rows to judge it by."""
    folder = tmp_path_factory.mktemp("finishing")
    features = write_features(folder / "features", SCHEMA)
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, folder / "model.onnx", {})
    return folder / "model.onnx", features / "valid"


def test_accepted_changes_replace_the_graph_and_its_variants(world: tuple[Path, Path], tmp_path: Path) -> None:
    graph, variant = (Path(shutil.copy(world[0], tmp_path / name)) for name in ("model.onnx", "packed.onnx"))
    changes = ExportConfig(tables="fp16").changes()
    figures = apply_if_equal(graph, SCHEMA, world[1], changes, (variant, tmp_path / "absent.onnx"))
    assert {task: f["metric"] for task, f in figures["fp16 tables"].items()} == {"like": "auc", "rating": "rmse"}
    drop_unread_tables(tmp_path, "fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "packed.onnx", "tables.fp16.bin"]
    assert graph.read_bytes() == variant.read_bytes() != world[0].read_bytes()
    drop_unread_tables(tmp_path, "fp32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "packed.onnx"]


def spoil(source: Path, target: Path) -> None:
    model = onnx.load(source)
    (head,) = (each for each in model.graph.initializer if each.name == "towers.1.members.0.head.bias")
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) + np.float32(3), head.name))
    onnx.save(model, target)


def test_a_change_that_costs_too_much_is_refused_with_the_figures(world: tuple[Path, Path], tmp_path: Path) -> None:
    graph = Path(shutil.copy(world[0], tmp_path / "model.onnx"))
    with pytest.raises(
        ExportError, match=r"^spoilt heads cost too much .*\(rating: rmse [\d.]+ -> [\d.]+; allowed are"
    ):
        apply_if_equal(graph, SCHEMA, world[1], {"spoilt heads": spoil})
    assert graph.read_bytes() == world[0].read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_calibration_is_one_for_all_tasks_or_one_by_task() -> None:
    assert ExportConfig().methods(SCHEMA) == {"like": "auto", "rating": "auto"}
    assert ExportConfig(calibration="none").methods(SCHEMA) == {}
    assert ExportConfig(calibration={"like": "none"}).methods(SCHEMA) == {}
    assert ExportConfig(calibration="isotonic").methods(SCHEMA) == {"like": "isotonic", "rating": "isotonic"}
    assert ExportConfig(calibration={"like": "platt"}).methods(SCHEMA) == {"like": "platt"}


def test_calibration_tells_what_it_gained(world: tuple[Path, Path]) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}), seed=5)
    told = calibrate_on(ranker, world[1], {"like": "platt"})["like"]
    assert told["method"] == "platt"
    assert told["log_loss"]["after"] < told["log_loss"]["before"]
    assert calibrate_on(ranker, world[1], {}) == {}


def test_by_default_a_task_that_is_off_is_calibrated(world: tuple[Path, Path]) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}), seed=5)
    with torch.no_grad():
        ranker.get_parameter("network.towers.towers.0.head.bias").add_(2.0)
    told = calibrate_on(ranker, world[1], ExportConfig().methods(SCHEMA))
    assert told.keys() == {"like"}
    assert told["like"]["log_loss"]["after"] < told["like"]["log_loss"]["before"]


def test_a_target_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    ranker = lively_ranker(SCHEMA, small_config())
    for target in (tmp_path / "model.onnx", tmp_path / "absent" / "model.onnx"):
        with pytest.raises(ExportError, match="cannot become a graph"):
            export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), target)
    assert [path.name for path in tmp_path.rglob("*")] == ["model.onnx"]


def test_a_full_disk_leaves_no_part_of_an_export(small_disk: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(expert_widths=(256, 128)))
    with pytest.raises(OSError, match="No space left"):
        export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), small_disk / "model.onnx")
    assert list(small_disk.iterdir()) == []
