"""Every gate equals the published layers: outputs, regularisers and gradients on vectors made with those layers.

The vectors lie outside the repository: PARITY_DIR names their folder (default: ../shared/parity beside the repository).
Sizes are read from the arrays, so other vectors of the same layout are checked as they are.

Shapes: B rows, D routing inputs, E outputs of an expert, n experts, k selectors, L routing logits.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.gates import CometConfig, DSelectKConfig, Gate, HashConfig, PermutationConfig, Routing, TopKConfig
from models.gates.comet import CometGate
from models.gates.dselect_k import DSelectKGate
from models.gates.hash import HashGate
from models.gates.permutation import assignment, matrix_entropy, sinkhorn
from models.gates.top_k import TopKGate

PARITY = Path(__file__).resolve().parents[3] / os.environ.get("PARITY_DIR", "../shared/parity")
TOLERANCES = {torch.float64: (1e-10, 1e-12), torch.float32: (1e-5, 1e-5)}

Case = dict[str, Tensor]
Parameters = dict[str, Tensor]


class Errors:
    """Compares with the vectors and remembers the largest errors."""

    def __init__(self) -> None:
        self.absolute = self.relative = self.share = 0.0
        self.checked = 0

    def check(self, what: str, actual: Tensor, expected: Tensor, *, gradient: bool = False) -> None:
        """Assert closeness by element; float32 gradients, which are sums of large terms, by the array's largest."""
        assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
        assert actual.dtype == expected.dtype, f"{what}: computed in {actual.dtype}, not {expected.dtype}"
        rtol, atol = TOLERANCES[expected.dtype]
        difference = (actual.detach() - expected).abs()
        by_largest = gradient and expected.dtype == torch.float32
        size = expected.abs().max().expand_as(expected) if by_largest else expected.abs()
        share = float((difference / (atol + rtol * size)).max())
        assert share <= 1, f"{what}: off by {float(difference.max()):.3g}, {share:.3g} times the tolerance"
        self.absolute = max(self.absolute, float(difference.max()))
        self.relative = max(self.relative, float((difference / size.clamp_min(1.0)).max()))
        self.share = max(self.share, share)
        self.checked += 1

    def __str__(self) -> str:
        return (
            f"{self.checked} arrays, largest error {self.absolute:.1e} absolute, {self.relative:.1e} relative to "
            f"max(1, size), {self.share:.1e} of the tolerance"
        )


class Vectors:
    """One file of vectors."""

    def __init__(self, name: str) -> None:
        path = PARITY / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no parity vectors at {path}: set PARITY_DIR")
        self.arrays = np.load(path, allow_pickle=False)
        self.groups = sorted({key.split("/")[0] for key in self.arrays.files if "/" in key})

    def group(self, group: str) -> dict[str, np.ndarray]:
        return {key.split("/")[1]: self.arrays[key] for key in self.arrays.files if key.startswith(f"{group}/")}

    def tensors(self, group: str) -> Case:
        return {name: torch.from_numpy(array) for name, array in self.group(group).items() if array.dtype.kind != "U"}

    def cases(self) -> Iterator[tuple[str, int, Case]]:
        """Every case: its name, the k of its group's name and its arrays."""
        for group in self.groups:
            tensors = self.tensors(group)
            for index in range(len(tensors["output"])):
                yield f"{group}[{index}]", selectors(group), {name: x[index] for name, x in tensors.items()}


def selectors(group: str) -> int:
    return int(re.findall(r"_k(\d+)", group)[0])


def pack_dselect(arrays: Case) -> Parameters:
    """The projection [L, D] (or the constant logits) of separate code and weight arrays."""
    if "z_logits" in arrays:
        return {"constant_1L": torch.cat([arrays["z_logits"].flatten(), arrays["w_logits"].flatten()]).unsqueeze(0)}
    kernel_DL = torch.cat([arrays["z_kernel"], arrays["w_kernel"]], 1)
    return {"projection.weight": kernel_DL.T, "projection.bias": torch.cat([arrays["z_bias"], arrays["w_bias"]])}


def pack_comet(arrays: Case) -> Parameters:
    """The projection [L, D] of arrays by split or leaf node."""
    kernels = [arrays[name].permute(0, 2, 1).flatten(0, 1) for name in ("split_kernel", "leaf_kernel")]
    biases = [arrays[name].flatten() for name in ("split_bias", "leaf_bias")]
    return {"projection.weight": torch.cat(kernels), "projection.bias": torch.cat(biases)}


def pack_top_k(arrays: Case) -> Parameters:
    return {"projection.weight": arrays["weight"], "projection.bias": arrays["bias"]}


def linear(parameters: Parameters, routing_BD: Tensor) -> Tensor:
    return F.linear(routing_BD, parameters["projection.weight"], parameters["projection.bias"])


def call(gate: Gate, parameters: Parameters, routing_BD: Tensor | None) -> Routing:
    """Run the gate with other parameters, differentiable in them."""
    answer: Routing = torch.func.functional_call(gate, parameters, (routing_BD,))
    return answer


def freeze(gate: Gate, permutation_nn: Tensor) -> None:
    """Freeze the gate's permutation at a given matrix."""
    assert gate.permutation is not None
    with torch.no_grad():
        gate.permutation.log_alpha_EE.copy_(permutation_nn)
    gate.step(gate.permutation.config.steps)
    assert torch.equal(torch.eye(gate.experts)[gate.permutation.index_E].T, permutation_nn.float())


def leaves(case: Case) -> Case:
    """The case's parameters, experts and routing input, by short name, as leaves of the gradient's graph."""
    wanted = {name.removeprefix("param."): x for name, x in case.items() if name.startswith("param.")}
    wanted |= {name: case[name] for name in ("experts", "routing") if name in case}
    return {name: x.clone().requires_grad_() for name, x in wanted.items()}


def check_mixture(errors: Errors, name: str, case: Case, routing: Routing, inputs: Case) -> None:
    """Compare weights, mixture, total and all the gradients that the case has."""
    experts_nBE = inputs["experts"]
    weights_Bn = routing.weights_BE
    output_BE = torch.einsum("bn,nbe->be", weights_Bn.expand(experts_nBE.shape[1], -1), experts_nBE)
    task = (output_BE * case["cotangent"]).sum()
    penalty = torch.stack([torch.zeros_like(task), *routing.penalties.values()]).sum()
    errors.check(f"{name} expert_weights", weights_Bn.view_as(case["expert_weights"]), case["expert_weights"])
    errors.check(f"{name} output", output_BE, case["output"])
    errors.check(f"{name} total", task + penalty, case["total"])
    values = {"grad_task": task, "grad_reg": penalty, "grad_total": task + penalty}
    for key in (key for key in case if key.startswith("grad_")):
        prefix, leaf = key.split(".")
        (actual,) = torch.autograd.grad(
            values[prefix], [inputs[leaf]], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        errors.check(f"{name} {key}", actual, case[key], gradient=True)


def check_dselect(errors: Errors, vectors: Vectors) -> None:
    for name, k, case in vectors.cases():
        inputs = leaves(case)
        parameters, routing_BD = pack_dselect(inputs), inputs.get("routing")
        config = DSelectKConfig(
            k=k,
            gamma=float(case["case.gamma"]),
            entropy=float(case["case.lam"]),
            reach_epsilon=0.0,
            reduction="sum",
        )
        gate = DSelectKGate(config, len(case["experts"]), 0 if routing_BD is None else routing_BD.shape[1])
        routing = call(gate, parameters, routing_BD)
        logits_BL = parameters["constant_1L"] if routing_BD is None else linear(parameters, routing_BD)
        codes_BKE, _ = gate.selector_codes(logits_BL)
        no_reach = torch.zeros_like(case["reach_loss"])
        errors.check(f"{name} r", codes_BKE.view_as(case["selector_outputs"]), case["selector_outputs"])
        errors.check(f"{name} entropy", routing.penalties["selector_entropy"], case["entropy_loss"])
        errors.check(f"{name} reach", routing.penalties.get("reachability", no_reach), case["reach_loss"])
        check_mixture(errors, name, case, routing, inputs)


def check_comet(errors: Errors, vectors: Vectors) -> None:
    for name, k, case in vectors.cases():
        inputs = leaves(case)
        config = CometConfig(
            k=k,
            gamma=float(case["case.gamma"]),
            entropy=float(case["case.lam"]),
            permutation=PermutationConfig(steps=1),
        )
        gate = CometGate(config, len(case["experts"]), case["routing"].shape[1])
        freeze(gate, case["permutation"])
        routing = call(gate, pack_comet(inputs), inputs["routing"])
        errors.check(f"{name} entropy", routing.penalties["leaf_entropy"], case["entropy_loss"])
        check_mixture(errors, name, case, routing, inputs)


def check_top_k(errors: Errors, vectors: Vectors) -> None:
    for name, k, case in vectors.cases():
        inputs = leaves(case)
        config = TopKConfig(k=k, permutation=PermutationConfig(steps=1))
        gate = TopKGate(config, len(case["experts"]), case["routing"].shape[1])
        freeze(gate, case["permutation"])
        routing = call(gate, pack_top_k(inputs), inputs["routing"])
        assert bool((routing.selected_BE.sum(-1) == k).all()), name
        check_mixture(errors, name, case, routing, inputs)


def check_hash(errors: Errors, vectors: Vectors) -> None:
    for name, _, case in vectors.cases():
        rows = len(case["expert_index"])
        config = HashConfig(feature="user", assignment="balanced", rows=rows, permutation=PermutationConfig(steps=1))
        gate = HashGate(config, len(case["experts"]))
        gate.table_R.copy_(case["expert_index"])
        freeze(gate, case["permutation"])
        check_mixture(errors, name, case, gate(None, torch.arange(rows)), leaves(case))


def gate_of(arrays: Case, k: int, experts: int, gamma: float) -> tuple[Gate, Parameters]:
    """The gate that a set of arrays belongs to."""
    if "z_kernel" in arrays:
        width = len(arrays["z_kernel"])
        return DSelectKGate(DSelectKConfig(k=k, gamma=gamma), experts, width), pack_dselect(arrays)
    if "split_kernel" in arrays:
        return CometGate(CometConfig(k=k, gamma=gamma), experts, arrays["split_kernel"].shape[1]), pack_comet(arrays)
    return TopKGate(TopKConfig(k=k), experts, arrays["weight"].shape[1]), pack_top_k(arrays)


def check_moe(errors: Errors, vectors: Vectors) -> None:
    """A plain two-task model around the gates: embeddings, experts, one gate and head a task, losses."""
    for group in vectors.groups:
        case = vectors.tensors(group)
        hidden_BD = torch.cat([case["user_emb"][case["ids"][:, 0]], case["item_emb"][case["ids"][:, 1]]], 1)
        experts_nBE = F.relu(hidden_BD @ case["expert_kernel"] + case["expert_bias"].unsqueeze(1))
        outputs = []
        for task in range(len(case["head_kernel1"])):
            arrays = {key.split(".")[1]: x for key, x in case.items() if key.startswith(f"gate{task}.")}
            gate, parameters = gate_of(arrays, selectors(group), len(case["expert_kernel"]), float(case["gamma"]))
            weights_Bn = call(gate.eval(), parameters, hidden_BD).weights_BE
            mixed_BE = torch.einsum("bn,nbe->be", weights_Bn, experts_nBE)
            top = F.relu(mixed_BE @ case["head_kernel1"][task] + case["head_bias1"][task])
            outputs.append(top @ case["head_kernel2"][task] + case["head_bias2"][task])
        check_losses(errors, group, case, outputs[0].sigmoid(), outputs[1])


def check_losses(errors: Errors, name: str, case: Case, watch: Tensor, rating: Tensor) -> None:
    bce = F.binary_cross_entropy(watch, case["label_watch"])
    rated = case["label_rating"] != 0
    mse = F.mse_loss(rating[rated], case["label_rating"][rated])
    errors.check(f"{name} out_watch", watch, case["out_watch"])
    errors.check(f"{name} out_rating", rating, case["out_rating"])
    errors.check(f"{name} bce", bce, case["bce"])
    errors.check(f"{name} masked_mse", mse, case["masked_mse"])
    errors.check(f"{name} loss", 0.1 * bce + 0.9 * mse, case["weighted_loss_01_09"])


def check_permutation(errors: Errors, vectors: Vectors) -> None:
    for group in vectors.groups:
        case = vectors.tensors(group)
        if group == "schedule":
            check_schedule(errors, case)
            continue
        settings = re.fullmatch(r".*_tau([^_]+)_it(\d+)", group)
        assert settings, group
        soft = sinkhorn(case["log_alpha"], float(settings[1]), int(settings[2]))
        hard = torch.stack([torch.eye(len(x))[assignment(x)].T for x in soft])
        errors.check(f"{group} soft", soft, case["soft"])
        errors.check(f"{group} hard", hard, case["hard"])
        errors.check(f"{group} entropy_reg", matrix_entropy(soft), case["entropy_reg"])


def check_schedule(errors: Errors, case: Case) -> None:
    config = PermutationConfig(steps=int(case["total_steps"]))
    temperatures, rounds = zip(*(config.at(int(step)) for step in case["step"]), strict=True)
    # The reference keeps its schedule in float32.
    log10 = torch.tensor(temperatures, dtype=torch.float64).log10().float()
    errors.check("schedule log10_tau", log10, case["log10_tau"].float())
    assert list(rounds) == case["n_iters"].tolist()


CHECKS: dict[str, Callable[[Errors, Vectors], None]] = {
    "dselect_k_static": check_dselect,
    "dselect_k_example": check_dselect,
    "comet_gate": check_comet,
    "topk_gate": check_top_k,
    "hash_gate": check_hash,
    "moe_forward": check_moe,
    "permutation": check_permutation,
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_gates_equal_the_published_layers_on_every_case(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    vectors, errors = Vectors(name), Errors()
    CHECKS[name](errors, vectors)
    assert errors.checked >= len(vectors.groups)
    with capsys.disabled():
        print(f"\n{name}: {errors}")  # noqa: T201 - the largest error of each file is what this test reports


def test_no_file_of_vectors_goes_unchecked() -> None:
    if not PARITY.is_dir():
        pytest.skip(f"no parity vectors at {PARITY}: set PARITY_DIR")
    assert {path.stem for path in PARITY.glob("*.npz")} <= set(CHECKS)
