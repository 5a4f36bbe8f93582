"""HoME's and AutoInt's layers against their equations, written out element by element in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from contract.errors import ConfigError
from contract.schema import DenseSpec, IdSpec
from models.experts.level import RoutingInput
from models.input_layout import FeatureColumns
from models.interactions.autoint import AutoIntConfig
from models.interactions.projection import ProjectionConfig
from models.layers.feature_gate import FeatureGate
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lively_ranker, small_config, small_schema

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().double().numpy()


def test_autoint_equals_equations_five_to_eight_row_by_row_and_head_by_head() -> None:
    torch.manual_seed(0)
    specs = [DenseSpec(name=f"f{i}", side="item", encoding="standardise") for i in range(3)]
    features = [FeatureColumns(specs[0], (0, 1)), FeatureColumns(specs[1], (2, 3)), FeatureColumns(specs[2], (4,))]
    heads, width, layers = 2, 3, 2
    layer = AutoIntConfig(layers=layers, heads=heads, head_width=width).build(features)
    assert layer is not None
    x = torch.randn(4, 5)
    answers = array(layer(x))
    single, pairs = (array(weight) for weight in layer.fields.weights)  # type: ignore[union-attr]
    for row, got in zip(array(x), answers, strict=True):
        # Features of fewer columns come first.
        e = [row[4:5] @ single[0], row[0:2] @ pairs[0], row[2:4] @ pairs[1]]
        for attention in layer.layers:  # type: ignore[union-attr]
            maps = array(attention.maps.weight)
            query, key, value, residual = (maps[i * heads * width : (i + 1) * heads * width] for i in range(4))
            new = []
            for m in range(3):
                concatenated: list[float] = []
                for h in range(heads):
                    part = slice(h * width, (h + 1) * width)
                    scores = np.array([(query[part] @ e[m]) @ (key[part] @ e[k]) for k in range(3)])
                    alpha = softmax(scores)
                    concatenated += list(sum(alpha[k] * (value[part] @ e[k]) for k in range(3)))
                new.append(np.maximum(np.array(concatenated) + residual @ e[m], 0.0))
            e = new
        np.testing.assert_allclose(got, np.concatenate([row, *e]), rtol=1e-5, atol=1e-6)


def test_a_projection_maps_each_named_feature_and_leaves_the_others_as_they_are() -> None:
    torch.manual_seed(0)
    text = [DenseSpec(name=f"text[{n}]", side="item", encoding="standardise", vector="text") for n in range(3)]
    ids = [IdSpec(name=name, kind="id", side="item", rows=9) for name in ("item", "author")]
    features = [FeatureColumns(ids[0], (0, 1)), FeatureColumns(text[0], (2, 3, 4)), FeatureColumns(ids[1], (5, 6))]
    config = ProjectionConfig(to={"text": 2, "author": 1})
    layer = config.build(features)
    assert layer is not None
    x = torch.randn(4, 7)
    answers = array(layer(x))
    assert answers.shape[1] == config.width(features) == 5
    (text_w, text_b), (author_w, author_b) = ((array(m.weight), array(m.bias)) for m in layer.maps)  # type: ignore[union-attr]
    for row, got in zip(array(x), answers, strict=True):
        expected = np.concatenate([row[:2], text_w @ row[2:5] + text_b, author_w @ row[5:] + author_b])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"names image, which are not features; there are: item, text, author"):
        ProjectionConfig(to={"image": 2}).build(features)


def test_a_feature_gate_equals_homes_equation_row_by_row() -> None:
    torch.manual_seed(0)
    gate = FeatureGate(width=6, rank=2, gates=3)
    nn.init.normal_(gate.up_GRD)
    x = torch.randn(5, 6)
    down, up = array(gate.down.weight), array(gate.up_GRD)
    for row, got in zip(array(x), array(gate(x)), strict=True):
        weights = softmax(array(gate.choice.weight) @ row + array(gate.choice.bias))
        maps = [2 * sigmoid((down[2 * g : 2 * g + 2] @ row) @ up[g]) for g in range(3)]
        np.testing.assert_allclose(got, row * sum(w * m for w, m in zip(weights, maps, strict=True)), rtol=1e-5)


def expert(level: nn.Module, number: int, row: Floats) -> Floats:
    """HoME's expert: Swish of the batch norm of each linear map."""
    bank = next(b for b in level.typed_banks if b.first <= number < b.first + b.experts.count)  # type: ignore[union-attr]
    own, count = number - bank.first, bank.experts.count
    x = row if bank.feature_gate is None else array(bank.feature_gate(torch.from_numpy(row).float().unsqueeze(0)))[0]
    for block in bank.experts.typed_blocks:
        width = block.norm.num_features // count
        part = slice(own * width, (own + 1) * width)
        if isinstance(block.linear, nn.Linear):
            hidden = array(block.linear.weight)[part] @ x + array(block.linear.bias)[part]
        else:
            hidden = array(block.linear.weight_EHD)[own] @ x + array(block.linear.bias_EH)[own]
        scale = array(block.norm.weight)[part] / np.sqrt(array(block.norm.running_var)[part] + block.norm.eps)
        normed = (hidden - array(block.norm.running_mean)[part]) * scale + array(block.norm.bias)[part]
        x = normed * sigmoid(normed)
    return x


def test_homes_meta_level_adds_a_gate_over_visible_experts_and_a_self_gate() -> None:
    schema = small_schema()
    groups = {"taste": ("like",), "stars": ("rating",)}
    architecture = {"name": "home", "groups": groups, "group_experts": 2, "feature_rank": 2}
    config = small_config(architecture=architecture, gate={"name": "softmax"}, experts=2, routing_norm="none")
    ranker: Ranker = lively_ranker(schema, config)
    level = ranker.network.typed_levels[0]
    columns = ranker.network.input_norm(ranker.columns(TensorInputs.from_numpy(inputs(schema, 3, 3)))).detach()
    streams, _ = level([columns], RoutingInput(None, None))
    gates = level.typed_gates
    for row, got in zip(range(3), streams[0], strict=True):
        x = array(columns[row])
        answers = [expert(level, number, x) for number in range(6)]
        # Group 0 sees its own two experts, and the shared ones, which stand behind those of both groups.
        wide, own = (softmax(array(g.logits(columns[row : row + 1]))[0]) for g in (gates[0], gates[3]))
        seen = [*zip(wide, (0, 1, 4, 5), strict=True), *zip(own, (0, 1), strict=True)]
        expected = np.stack([weight * answers[e] for weight, e in seen]).sum(axis=0)
        np.testing.assert_allclose(array(got), expected, rtol=2e-4, atol=1e-5)
