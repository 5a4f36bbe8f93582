"""Gates over one input as one product: the same weights as gate by gate, where each has the same way to its logits."""

import pytest
import torch
from torch import Tensor

from models.gates import build_gate
from models.gates.joint_logits import joint_logits
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, small_config, small_schema


@pytest.mark.parametrize("name", ["softmax", "top_k", "dselect_k", "comet"])
def test_the_model_answers_and_learns_as_gate_by_gate(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.manual_seed(0)
    ranker = Ranker(small_schema(), small_config(gate={"name": name, "k": 2} if name != "softmax" else {"name": name}))
    given = TensorInputs.from_numpy(inputs(small_schema(), 64, 64))
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"}))
    found: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for kept, split in ((found, False), (expected, True)):
        if split:
            monkeypatch.setattr("models.experts.level.joint_logits", lambda *_: None)
        ranker.eval()
        ranker.zero_grad()
        output = ranker(given)
        output.logits_BT.square().sum().backward()
        kept["answers"] = output.logits_BT.detach()
        kept |= {n: p.grad.clone() for n, p in ranker.network.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for each, tensor in found.items():
        torch.testing.assert_close(tensor, expected[each], rtol=1e-4, atol=1e-5, msg=each)


@pytest.mark.parametrize("normalised", [False, True])
def test_a_gate_with_its_own_way_is_left_alone(*, normalised: bool) -> None:
    config = small_config(gate={"name": "softmax"} if normalised else {"name": "noisy_top_k", "k": 2})
    plain, special = build_gate(small_config(gate={"name": "softmax"}).gate, 4, 3), build_gate(config.gate, 4, 3)
    if normalised:
        special.normalise_input()
    assert joint_logits([plain, plain], torch.ones(5, 3)) is not None
    assert joint_logits([plain, special], torch.ones(5, 3)) is None
