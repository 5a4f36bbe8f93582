"""The eager model's own rounding: small where the inputs are ordinary, large where the model is ill-conditioned."""

from typing import Any

import numpy as np
import pytest
import torch

from models.export.float_rounding import measure_rounding
from models.ranker_tensors import TensorInputs
from tests.models.small import ill_conditioned, inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
INPUTS = TensorInputs.from_numpy(inputs(SCHEMA, 64, 64))
ROWS = np.array([3, 40, 41])


def test_an_ordinary_row_is_off_by_a_few_units_in_the_last_place() -> None:
    rounding = measure_rounding(lively_ranker(SCHEMA, small_config()), INPUTS, ROWS)
    assert rounding.error_BT.shape == (3, 2)
    assert 0.0 < rounding.error_BT.max() < 2e-6
    assert not rounding.tied_B.any()


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": {"name": "hash", "feature": "user"}},
        {"gate": {"name": "comet"}, "routing": "user"},
        {"gate": {"name": "top_k"}, "architecture": {"name": "ple"}, "interaction": {"name": "autoint"}},
        {"gate": {"name": "top_p"}, "interaction": {"name": "dcn_v2"}},
        {"gate": {"name": "softmax"}, "routing": "static"},
        {"architecture": {"name": "shared_bottom"}},
    ],
)
def test_every_kind_of_network_can_be_measured(changes: dict[str, Any]) -> None:
    rounding = measure_rounding(lively_ranker(SCHEMA, small_config(**changes)), INPUTS, ROWS)
    assert 0.0 < rounding.error_BT.max() < 1e-4


def test_an_ill_conditioned_model_is_off_by_more_and_stays_float32() -> None:
    ranker = ill_conditioned()
    assert measure_rounding(ranker, INPUTS, ROWS).error_BT.max() > 2e-6
    assert {parameter.dtype for parameter in ranker.parameters()} == {torch.float32}


def test_a_row_between_two_experts_is_a_tie() -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}, gate_scope="shared"))
    projection = ranker.network.typed_gates[0].projection
    assert projection is not None
    with torch.no_grad():
        projection.weight[1] = projection.weight[0]
        projection.bias[:] = torch.tensor([10.0, 10.0 + 1e-6, 0.0, 0.0])
    assert measure_rounding(ranker, INPUTS, ROWS).tied_B.all()
