"""Edges of numbers: heavy values have their own, and nulls a component of their own in the model."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.schema import DenseSpec, Part
from features.encode.encoder import encode_dense
from features.encode.fit_encoders import quantile_edges
from models.input_layout import part_layout
from models.layers.dense import DenseColumns


def skewed(zeros: float, rows: int = 20_000) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    return np.where(random.random(rows) < zeros, 0.0, random.lognormal(5.0, 2.0, rows))


@pytest.mark.parametrize("zeros", [0.5, 0.92, 0.99])
@pytest.mark.parametrize("bins", [2, 24, 256])
def test_a_heavy_value_has_an_edge_and_the_other_bins_are_spread_over_the_rest(zeros: float, bins: int) -> None:
    values = skewed(zeros)
    edges = np.array(quantile_edges(values, bins))
    others = values[values > 0]
    shares = np.histogram(others, edges[1:])[0] / len(others)
    assert edges[0] == 0.0
    assert len(edges) == min(bins, len(others)) + 1
    assert edges[-1] == values.max()
    if len(others) > 50 * bins:
        np.testing.assert_allclose(shares, 1 / (bins - 1), rtol=0.2)


def test_a_column_of_few_values_has_each_as_an_edge() -> None:
    values = np.repeat([0.0, 1.0, 2.0, 7.0], [10_000, 3, 2, 1])
    assert quantile_edges(values, 24) == (0.0, 1.0, 2.0, 7.0)


def test_without_heavy_values_the_bins_are_equally_full() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    np.testing.assert_allclose(quantile_edges(values, 10), np.quantile(values, np.linspace(0, 1, 11)))


def test_a_null_is_told_apart_from_the_lowest_value() -> None:
    spec = DenseSpec(name="x", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 3.0), null_bin=True)
    columns = DenseColumns(part_layout("candidate", Part(ids=(), lists=(), dense=(spec,))))
    positions = encode_dense(spec, np.array([0.0, np.nan, 2.0]))
    expanded = torch.cat(columns(torch.from_numpy(positions).unsqueeze(1)), dim=1)
    assert expanded.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.5, 0.0]]


def test_a_schema_without_null_bins_keeps_its_fingerprint() -> None:
    spec = DenseSpec(name="x", side="item", encoding="piecewise_linear", edges=(0.0, 1.0))
    assert "null_bin" not in spec.model_dump(mode="json")
    assert DenseSpec.model_validate_json(spec.model_copy(update={"null_bin": True}).model_dump_json()).null_bin
