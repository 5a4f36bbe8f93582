"""Sums over columns of any size: exact, or refused by the column's name."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from contract.schema import DenseSpec, Schema
from features.build import build
from features.feature_config import FeaturesConfig
from tests.features.raw_world import quiet

START = datetime(2026, 3, 1, tzinfo=UTC)


def means(directory: Path, values: pa.Array, stat: str = "mean") -> tuple[float, float]:
    """The smallest and the largest aggregate of a column by item, of which there are two, over 400 events."""
    rows = len(values)
    events = {
        "item": [i % 2 for i in range(rows)],
        "at": pa.array([START + timedelta(minutes=i) for i in range(rows)], pa.timestamp("us", "UTC")),
        "liked": [i % 3 == 0 for i in range(rows)],
        "cost": values,
    }
    pq.write_table(pa.table(events), directory / "events.parquet")
    recipe: dict[str, Any] = {
        "events": {"path": str(directory / "events.parquet"), "item": "item", "time": "at"},
        "aggregates": [{"by": ["item"], "of": ["cost"], "stats": [stat], "count": False}],
        "tasks": [{"name": "like", "kind": "binary", "label": "liked"}],
        "split": {"by": "user_time", "valid": 0.2},
    }
    build(FeaturesConfig.model_validate(recipe), directory / "features", quiet)
    (spec,) = Schema.load(directory / "features").features
    assert isinstance(spec, DenseSpec)
    return spec.edges[0], spec.edges[-1]


@pytest.mark.parametrize("size", [1e-9, 3e-7, 1e-5, 0.1, 1e3, 8.8e12, 1e18])
def test_a_mean_of_equal_values_is_that_value_whatever_its_size(tmp_path: Path, size: float) -> None:
    low, high = means(tmp_path, pa.array([size * (1 + i % 2) for i in range(400)]))
    assert low == pytest.approx(size, rel=1e-6)
    assert high == pytest.approx(2 * size, rel=1e-6)


@pytest.mark.parametrize(
    "dtype", [pa.int8(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.bool_()]
)
def test_whole_numbers_of_every_type_are_added_up(tmp_path: Path, dtype: pa.DataType) -> None:
    assert means(tmp_path, pa.array([1] * 400).cast(dtype)) == (1.0, 1.0)


def test_sums_of_whole_numbers_go_beyond_64_bits(tmp_path: Path) -> None:
    assert means(tmp_path, pa.array([2**62] * 400))[1] == float(2**62)


def test_decimals_are_added_up(tmp_path: Path) -> None:
    assert means(tmp_path, pa.array([1.25] * 400).cast(pa.decimal128(10, 2))) == (1.25, 1.25)


@pytest.mark.parametrize("size", [1e300, float("inf")])
def test_a_value_too_large_for_sums_is_refused_by_its_column(tmp_path: Path, size: float) -> None:
    with pytest.raises(DataError, match=r"data\.aggregates\[0\] cannot add up cost by item"):
        means(tmp_path, pa.array([size] * 400))


def test_a_column_too_small_for_sums_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'cost'.*nowhere larger than 1e-13.*another unit"):
        means(tmp_path, pa.array([1e-13] * 400))
