"""DSelect-k's own ground: does a static gate find which of many tasks are related?

``python -m benchmarks.papers [--tasks 16] [--gates dselect_k top_k ...] [--trials 25] [--json]``

Source: Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
Multi-Task Learning", section 4.1: synthetic regressions in groups of related tasks, of which each gate should give its
own few experts, and related ones the same. Tasks of a group have weights that correlate .9 and those of different
groups none: y = w x + sum sin(a w x + b) + noise. Each gate is static, over 16 experts, k = 4. A trial draws learning
rate, regularisation and seed; the best twentieth of the trials by validation error counts, on test rows. Reported are
the test error (mean squared, labels having variance 1), the experts that a task uses, and the Jaccard index of the
selections of related and of unrelated tasks.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from benchmarks.report import Case, arguments, case_of, finish
from models.experts.expert_mlp import Experts
from models.gates import Gate, GateConfig, build_gate
from models.layers.mlp import BlockConfig

INPUTS, GROUPS, CORRELATION, WAVES = 10, 4, 0.9, 4
EXPERTS, K, WIDTH = 16, 4, 16
ROWS, STEPS, BATCH = 6000, 600, 256
BEST = 0.05
_LATE = {"first_step": STEPS // 3, "last_step": STEPS * 9 // 10}
_PERMUTED: dict[str, Any] = {"permutation": {"steps": STEPS // 2}}
GATES: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "top_k": {"name": "top_k", "k": K},
    "noisy_top_k": {"name": "noisy_top_k", "k": K},
    "dselect_k": {"name": "dselect_k", "k": K},
    "comet": {"name": "comet", "k": K},
    **{f"{name} + permutation": {"name": name, "k": K, **_PERMUTED} for name in ("top_k", "dselect_k", "comet")},
    "softmax + permutation": {"name": "softmax", **_PERMUTED},
    "noisy_top_k + permutation": {"name": "noisy_top_k", "k": K, **_PERMUTED},
}


class Data(NamedTuple):
    """Inputs [rows, inputs], labels [rows, tasks], and each task's group."""

    x: Tensor
    y: Tensor
    groups: list[int]


@dataclass(frozen=True)
class Trial:
    """What one trial came to."""

    valid: float
    test: float
    experts: float
    related: float
    unrelated: float


def generate(tasks: int, seed: int) -> Data:
    """Draw a world; labels are scaled to variance 1."""
    draw = np.random.default_rng(seed)
    groups = [task * GROUPS // tasks for task in range(tasks)]
    common = draw.normal(size=(GROUPS, INPUTS))
    own = draw.normal(size=(tasks, INPUTS))
    weights = np.sqrt(CORRELATION) * common[groups] + np.sqrt(1 - CORRELATION) * own
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    slopes, shifts = draw.uniform(1.0, 3.0, (GROUPS, WAVES)), draw.uniform(0.0, 2 * np.pi, (GROUPS, WAVES))
    x = draw.normal(size=(ROWS, INPUTS))
    line = x @ weights.T
    y = line + np.sin(line[:, :, None] * slopes[groups] + shifts[groups]).sum(axis=2)
    y += draw.normal(scale=0.1, size=y.shape)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    return Data(torch.from_numpy(x).float(), torch.from_numpy(y).float(), groups)


class Mixture(nn.Module):
    """Experts for all tasks, a static gate and a linear head a task."""

    def __init__(self, config: dict[str, Any], tasks: int) -> None:
        super().__init__()
        settings = TypeAdapter[Any](GateConfig).validate_python(config)
        self.experts = Experts(INPUTS, EXPERTS, (WIDTH, WIDTH), BlockConfig("relu", "none", 0.0, residual=False))
        self.gates = nn.ModuleList(build_gate(settings, EXPERTS, 0) for _ in range(tasks))
        self.heads = nn.Parameter(torch.randn(tasks, WIDTH) * WIDTH**-0.5)
        self.biases = nn.Parameter(torch.zeros(tasks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answers [rows, tasks], the gates' penalties and their selections [tasks, experts]."""
        routings = [gate(None) for gate in self.gates]
        weights = torch.cat([routing.weights_BE for routing in routings])
        mixed = torch.einsum("te,beo->bto", weights, self.experts(x))
        penalty = sum((p for r in routings for p in r.penalties.values()), x.new_zeros(()))
        return (mixed * self.heads).sum(2) + self.biases, penalty, torch.cat([r.selected_BE for r in routings])

    def step(self, number: int) -> None:
        """Advance the gates' schedules."""
        for gate in self.gates:
            assert isinstance(gate, Gate)  # noqa: S101 the list holds gates; this tells the type checker
            gate.step(number)


def trial(gate: str, tasks: int, number: int) -> Trial:
    """Train once with settings drawn by the trial's number, the same for every gate."""
    draw = np.random.default_rng(number)
    rate, entropy = 10 ** draw.uniform(-3.0, -1.7), 10 ** draw.uniform(-2.5, 0.0)
    data = generate(tasks, seed=0)
    config = dict(GATES[gate])
    if config["name"] in {"dselect_k", "comet"}:
        config["entropy"] = {"start": 0.0, "end": float(entropy), **_LATE}
    torch.manual_seed(number)
    model = Mixture(config, tasks)
    optimiser = torch.optim.Adam(model.parameters(), lr=float(rate))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, float(rate), total_steps=STEPS)
    train, valid = ROWS * 2 // 3, ROWS * 5 // 6
    for step in range(STEPS):
        model.step(step)
        rows = torch.randint(0, train, (BATCH,))
        answers, penalty, _ = model.train()(data.x[rows])
        optimiser.zero_grad()
        ((answers - data.y[rows]).square().mean() + penalty / tasks).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        answers, _, selected = model.eval()(data.x)
    errors = (answers - data.y).square().mean(1)
    related, unrelated = jaccards(selected, data.groups)
    return Trial(
        float(errors[train:valid].mean()),
        float(errors[valid:].mean()),
        float(selected.sum(1).float().mean()),
        related,
        unrelated,
    )


def jaccards(selected_TE: Tensor, groups: list[int]) -> tuple[float, float]:
    """The mean Jaccard index of the selections of related tasks, and that of unrelated ones."""
    indices: dict[bool, list[float]] = {True: [], False: []}
    for one, other in combinations(range(len(groups)), 2):
        both = int((selected_TE[one] & selected_TE[other]).sum())
        either = int((selected_TE[one] | selected_TE[other]).sum())
        indices[groups[one] == groups[other]].append(both / either)
    return statistics.fmean(indices[True]), statistics.fmean(indices[False])


def cases(gate: str, tasks: int, trials: list[Trial]) -> Iterator[Case]:
    """The best twentieth by validation error, and the mean error of all trials."""
    ranked = sorted(trials, key=lambda each: each.valid)
    best = ranked[: max(1, round(BEST * len(trials)))]
    name = f"{gate}, {tasks} tasks"
    yield case_of(f"{name}: test error, best", [t.test for t in best], "mse", centre="mean")
    yield case_of(f"{name}: test error, all trials", [t.test for t in trials], "mse", centre="mean")
    yield case_of(f"{name}: experts per task", [t.experts for t in best], "experts", centre="mean")
    yield case_of(f"{name}: Jaccard, related", [t.related for t in best], "share", better="higher", centre="mean")
    yield case_of(f"{name}: Jaccard, unrelated", [t.unrelated for t in best], "share", centre="mean")


def main() -> int:
    """Run every gate's trials, then print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[16, 128], help="how many tasks (default 16 128)")
    parser.add_argument("--gates", nargs="+", default=list(GATES), choices=list(GATES), help="(default all)")
    parser.add_argument("--trials", type=int, default=25, help="of each gate (default 25)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Case] = []
    for tasks in options.tasks:
        for gate in options.gates:
            rows += cases(gate, tasks, [trial(gate, tasks, number) for number in range(options.trials)])
            print(f"{gate}, {tasks} tasks: {rows[-5].value:.4f}", flush=True)
    return finish("papers", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
