"""Graphs that reach for files outside their bundle are refused, also where the manifest vouches for them."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.errors import IntegrityError
from serving.graph.served_model import RankingModel
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_inputs, make_schema

DATA = "tables.bin"
MORE = 4


def with_data(work: Path, location: str) -> dict[str, Path]:
    """A tiny bundle's files whose graph takes its users' table from `location`."""
    files = make_files(work)
    model = onnx.load(files["model.onnx"])
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "user")
    (work / DATA).write_bytes(table.raw_data)
    onnx.external_data_helper.set_external_data(table, location, length=len(table.raw_data))
    table.ClearField("raw_data")
    files["model.onnx"].write_bytes(model.SerializeToString())
    return files | {DATA: work / DATA}


def published(store: Path, files: dict[str, Path]) -> Path:
    facts = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"]}
    return publish(store, "tiny", files, facts)


def test_data_beside_the_graph_is_read(tmp_path: Path) -> None:
    model = RankingModel.open(published(tmp_path / "store", with_data(tmp_path / "work", DATA)))
    assert np.isfinite(model.engine.predict(make_inputs(1, [1, 2]))["like"]).all()


@pytest.mark.parametrize("location", ["../../../secret.bin", "{}/secret.bin", "online/../../../../secret.bin"])
def test_data_outside_the_bundle_is_refused(location: str, tmp_path: Path) -> None:
    """By dots and by an absolute path; the file that they name is there and would do."""
    files = with_data(tmp_path / "work", location.format(tmp_path))
    (tmp_path / "secret.bin").write_bytes(files[DATA].read_bytes())
    with pytest.raises(IntegrityError, match=r"cannot load .*(?s:.)*(external|escapes|absolute|path)"):
        RankingModel.open(published(tmp_path / "store", files))


def test_a_symlink_for_data_is_refused(tmp_path: Path) -> None:
    bundle = published(tmp_path / "store", with_data(tmp_path / "work", DATA))
    (tmp_path / "secret.bin").write_bytes((bundle / DATA).read_bytes())
    (bundle / DATA).unlink()
    (bundle / DATA).symlink_to(tmp_path / "secret.bin")
    with pytest.raises(IntegrityError, match=r"tables\.bin, which is a link"):
        RankingModel.open(bundle)


def test_a_hard_link_for_data_is_refused(tmp_path: Path) -> None:
    bundle = published(tmp_path / "store", with_data(tmp_path / "work", DATA))
    os.link(bundle / DATA, tmp_path / "mine.bin")
    with pytest.raises(IntegrityError, match="hard-linked 2 times"):
        RankingModel.open(bundle)


def test_data_longer_than_promised_is_refused(tmp_path: Path) -> None:
    bundle = published(tmp_path / "store", with_data(tmp_path / "work", DATA))
    with (bundle / DATA).open("ab") as file:
        file.write(bytes(MORE))
    with pytest.raises(IntegrityError, match="bytes, but its manifest promises"):
        RankingModel.open(bundle)


def test_data_shorter_than_the_graph_needs_is_refused(tmp_path: Path) -> None:
    files = with_data(tmp_path / "work", DATA)
    files[DATA].write_bytes(files[DATA].read_bytes()[:-MORE])
    with pytest.raises(IntegrityError, match="cannot load"):
        RankingModel.open(published(tmp_path / "store", files))
