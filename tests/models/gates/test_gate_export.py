"""Every gate exports to ONNX with a free number of rows, and onnxruntime answers as the eager gate does.

Shapes: B rows, D routing inputs, E experts.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.gates import (
    CometConfig,
    DenseToSparseConfig,
    DSelectKConfig,
    Gate,
    GateConfig,
    GumbelConfig,
    HashConfig,
    MaskMoEConfig,
    NoisyTopKConfig,
    PermutationConfig,
    SoftmaxConfig,
    TopAnyConfig,
    TopKConfig,
    TopPConfig,
    build_gate,
)
from models.gates.mask_moe import MaskMoEGate
from tests.models.cuda_operators import CUDA

WIDTH, EXPERTS = 6, 6
CONFIGS: dict[str, GateConfig] = {
    "softmax": SoftmaxConfig(),
    "top_k": TopKConfig(k=2),
    "top_k_null": TopKConfig(k=2, null_experts=2),
    "noisy_top_k": NoisyTopKConfig(k=2),
    "hash": HashConfig(feature="user"),
    "balanced_hash": HashConfig(feature="user", assignment="balanced", rows=50),
    "dselect_k": DSelectKConfig(k=2),
    "comet": CometConfig(k=2),
    "permuted_comet": CometConfig(k=2, permutation=PermutationConfig(steps=1)),
    "gumbel": GumbelConfig(),
    "dense_to_sparse": DenseToSparseConfig(k=1, switch_step=50),
    "switched": DenseToSparseConfig(k=2, switch_step=1),
    "top_any": TopAnyConfig(),
    "mask_moe": MaskMoEConfig(feature="user", k=2, null_experts=1, rows=20),
    "top_p": TopPConfig(p=0.6),
    "top_p_null": TopPConfig(p=0.6, k=2, null_experts=2),
}

STATIC = {"top_k", "dselect_k", "comet"}


class AllGates(nn.Module):
    """One graph of all gates: weights and selected sets, two outputs per gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList()
        for name, config in CONFIGS.items():
            for width in (WIDTH, 0) if name in STATIC else (WIDTH,):
                gate = build_gate(config, EXPERTS, width)
                for parameter in gate.parameters():
                    nn.init.normal_(parameter)
                gate.step(1)
                if isinstance(gate, MaskMoEGate):
                    gate.fit(torch.arange(20) * 10)
                self.gates.append(gate)

    def forward(self, routing_BD: Tensor, ids_B: Tensor) -> tuple[Tensor, ...]:
        answers = [gate(routing_BD, ids_B) for gate in self.gates]
        return tuple(x for routing in answers for x in (routing.weights_BE, routing.selected_BE))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[AllGates, onnxruntime.InferenceSession, Path]:
    torch.manual_seed(0)
    model = AllGates().eval()
    path = tmp_path_factory.mktemp("gates") / "gates.onnx"
    rows = torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated calls
        torch.onnx.export(
            model,
            (torch.randn(5, WIDTH), torch.arange(5)),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: rows}, {0: rows}),
            input_names=["routing", "ids"],
        )
    return model, onnxruntime.InferenceSession(path), path


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_onnxruntime_answers_as_the_eager_gates_for_any_number_of_rows(
    exported: tuple[AllGates, onnxruntime.InferenceSession, Path], rows: int
) -> None:
    model, session, _ = exported
    routing_BD, ids_B = torch.randn(rows, WIDTH), torch.randint(-3, 2**40, (rows,))
    expected = model(routing_BD, ids_B)
    actual = session.run(None, {"routing": routing_BD.numpy(), "ids": ids_B.numpy()})
    for gate, at in zip(model.gates, range(0, len(expected), 2), strict=True):
        name = f"{type(gate).__name__} {at}"
        np.testing.assert_allclose(actual[at], expected[at].detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(actual[at + 1], expected[at + 1].numpy(), err_msg=name)
        assert isinstance(gate, Gate)
        assert actual[at].shape == (1 if gate.static else rows, EXPERTS)


@pytest.mark.slow
def test_the_graph_holds_no_slow_or_random_operator(
    exported: tuple[AllGates, onnxruntime.InferenceSession, Path],
) -> None:
    operators = {node.op_type for node in onnx.load(exported[2]).graph.node}
    assert operators <= CUDA
    assert not operators & {"Loop", "If", "Scan", "SequenceAt", "RandomNormalLike", "RandomUniformLike", "ScatterND"}
