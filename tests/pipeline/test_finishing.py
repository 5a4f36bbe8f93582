"""What export does beyond the graph: int8 experts behind their rule, calibration, a disk without room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.errors import ExportError
from models.export import export
from pipeline.finishing import refuse_losses
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SMALL_DISK = "size=64k"


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - the system's umount


def test_a_full_disk_leaves_no_part_of_an_export(small_disk: Path) -> None:
    schema = small_schema()
    ranker = lively_ranker(schema, small_config(expert_widths=(256, 128)))
    with pytest.raises(OSError, match="No space left"):
        export(ranker, schema, inputs(schema, 50, 50), small_disk / "model.onnx")
    assert list(small_disk.iterdir()) == []
