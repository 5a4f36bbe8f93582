"""Vectors as features: one dense column a number, the same in training rows and in requests."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from contract.errors import DataError, RequestError
from contract.hashing import hash_integers
from contract.schema import DenseSpec, Schema
from features.build import build
from features.feature_config import FeatureConfig
from features.online.compiled import without_compiler
from features.online.request_encoder import RankRequest, RequestEncoder
from models.input_layout import TableDims, feature_columns
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

VECTORS = [None if i % 9 == 8 else [i / 10, 1.0, -i / 3] for i in range(42)]


def build_with(directory: Path, vectors: pa.Array, width: int = 3) -> Path:
    tables = raw_tables()
    items = tables["items"].append_column("text", vectors)
    write_raw(directory, {**tables, "items": items})
    features: list[dict[str, Any]] = [{"name": "item"}, {"name": "text", "kind": "vector", "width": width}]
    build(recipe(directory, features=features, aggregates=[]), directory / "features", quiet)
    return directory / "features"


@pytest.fixture(scope="module", params=[pa.list_(pa.float32()), pa.list_(pa.float64(), 3)], ids=str)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_with(tmp_path_factory.mktemp("vectors"), pa.array(VECTORS, request.param))


def test_each_number_is_a_standardised_column_and_null_is_its_median(built: Path) -> None:
    train = pq.read_table(built / "train")
    specs = [spec for spec in Schema.load(built).features if isinstance(spec, DenseSpec)]
    assert [spec.name for spec in specs] == ["text[0]", "text[1]", "text[2]"]
    assert all(spec.vector == "text" and spec.side == "item" for spec in specs)
    known = train.filter(pa.compute.greater(train["text[0]"], -9.0))
    assert abs(float(pa.compute.mean(known["text[0]"]).as_py())) < 0.2
    assert train["text[1]"].null_count == 0
    assert len(known) == len(train)


def test_a_request_looks_the_vector_up_or_brings_its_own(built: Path) -> None:
    encoder = RequestEncoder.open(built)
    looked_up = encoder.encode(RankRequest("u1", [20, 21])).inputs.candidate.dense
    brought = encoder.encode(RankRequest("u1", [20, 21], item_features={"text": [VECTORS[20], VECTORS[21]]}))
    np.testing.assert_allclose(brought.inputs.candidate.dense, looked_up, rtol=1e-6)
    nothing = encoder.encode(RankRequest("u1", [20, 8], item_features={"text": [None, None]})).inputs.candidate.dense
    np.testing.assert_array_equal(nothing[0], nothing[1])
    assert not np.array_equal(nothing[0], looked_up[0])


@pytest.mark.parametrize("compiler", [True, False])
def test_online_tables_keep_vectors_in_half_precision_and_answer_what_training_rows_hold(
    built: Path, *, compiler: bool
) -> None:
    with nullcontext() if compiler else without_compiler():
        encoder = RequestEncoder.open(built)
        table = encoder.tables.item
        assert table is not None
        assert (str(table.halves.dtype), table.halves.shape[1], table.dense.shape[1]) == ("float16", 3, 0)
        train = pq.read_table(built / "train")
        by_item = dict(zip(train["__item"].to_pylist(), range(len(train)), strict=True))
        items = [item for item in range(40) if int(hash_integers(np.array([item]))[0]) in by_item]
        dense = encoder.encode(RankRequest("u1", items)).inputs.candidate.dense
    rows = [by_item[int(hash_integers(np.array([item]))[0])] for item in items]
    trained = np.stack([train[f"text[{n}]"].to_numpy()[rows] for n in range(3)], axis=1)
    np.testing.assert_array_equal(dense, trained)


@pytest.mark.parametrize(("value", "seen"), [([1.0, 2.0], "2 values"), (3.0, "float"), ([1.0, "x", 2.0], "number")])
def test_a_request_with_something_else_is_refused(built: Path, value: Any, seen: str) -> None:
    with pytest.raises(RequestError, match=seen):
        RequestEncoder.open(built).encode(RankRequest("u1", [20], item_features={"text": [value]}))


def test_the_model_sees_a_vector_as_one_feature(built: Path) -> None:
    features = {each.spec.name: each.columns for each in feature_columns(Schema.load(built), TableDims(4))}
    assert features == {"item": (0, 1, 2, 3), "text[0]": (4, 5, 6)}


def test_another_length_is_refused_by_name_and_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'text' has width 4, but \d+ rows hold another, such as 3"):
        build_with(tmp_path, pa.array(VECTORS, pa.list_(pa.float32())), width=4)


def test_a_column_of_numbers_is_no_vector(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'text' is a vector, but the column is double"):
        build_with(tmp_path, pa.array(np.zeros(42)))


def test_a_vector_says_how_wide_it_is() -> None:
    with pytest.raises(ValidationError, match="say how many numbers it has"):
        FeatureConfig(name="text", kind="vector")
    with pytest.raises(ValidationError, match="does not take width"):
        FeatureConfig(name="text", kind="dense", width=3)
