"""Training with conditional computation against dense: one level of experts, forward and backward, on one thread.

``python -m benchmarks.sparse_training [--rows 4096] [--rounds 5] [--json]``; top-2 gates of 4 tasks (per task, shared,
static), 8, 16 and 64 experts of 512 -> 128 -> 64 without norm and dropout. A round times a dense and a sparse step one
after the other, so that a busy machine slows both; both have the same weights, and their answers are compared.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import Case, arguments, case_of, finish
from models.architectures import PlanRequest
from models.experts.level import Level, LevelOutput, RoutingInput
from models.experts.sparse_training import union_of
from models.model_config import ModelConfig

TASKS = ("a", "b", "c", "d")
INPUTS = 512
BOUNDS = {(64, "per task"): 4.0, (16, "shared"): 6.0}
SCOPES: dict[str, dict[str, Any]] = {
    "per task": {},
    "shared": {"gate_scope": "shared"},
    "static": {"routing": "static"},
}


def level(experts: int, scope: str, mode: str) -> Level:
    """One level of an MMoE."""
    options = {"experts": experts, "gate": {"name": "top_k", "k": 2}, "norm": "none", "dropout": 0.0}
    config = ModelConfig.model_validate({**options, **SCOPES[scope], "sparse_training": mode})
    plan = config.architecture.plan(PlanRequest(TASKS, experts, config.gate_scope == "shared")).levels[0]
    torch.manual_seed(0)
    return Level(plan, [INPUTS], 0 if config.routing == "static" else None, config).train()


def stepper(model: Level, x_BD: Tensor) -> Callable[[], LevelOutput]:
    """One step: forward, backward to parameters and input."""

    def step() -> LevelOutput:
        model.zero_grad(set_to_none=True)
        x_BD.grad = None
        output = model([x_BD], RoutingInput(None, None))
        torch.stack(output.streams).square().mean().backward()
        return output

    return step


def seconds(step: Callable[[], LevelOutput]) -> float:
    """How long one step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(experts: int, scope: str, rows: int, rounds: int) -> list[Case]:
    """The speed-up over dense, and the share of (row, expert) pairs that was computed."""
    x_BD = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    dense, sparse = (stepper(level(experts, scope, mode), x_BD) for mode in ("off", "on"))
    expected, actual = dense(), sparse()
    torch.testing.assert_close(torch.stack(actual.streams), torch.stack(expected.streams), rtol=0, atol=1e-6)
    share = float(union_of(expected.routings).double().mean())
    factors = [seconds(dense) / seconds(sparse) for _ in range(rounds)]
    name = f"{experts} experts, {scope}"
    speed = case_of(f"{name}: speed-up", factors, "x", bound=BOUNDS.get((experts, scope)), better="higher")
    return [speed, case_of(f"{name}: union/n", [share], "of pairs")]


def main() -> int:
    """Measure every case and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=4096, help="rows of a batch (default 4096)")
    parser.add_argument("--rounds", type=int, default=5, help="timed pairs of steps a case (default 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        case
        for experts in (8, 16, 64)
        for scope in SCOPES
        for case in measure(experts, scope, options.rows, options.rounds)
    ]
    return finish("sparse_training", cases, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
