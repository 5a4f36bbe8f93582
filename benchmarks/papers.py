"""DSelect-k's own ground: does a static gate find which of many tasks are related?

``python -m benchmarks.papers [--tasks 16] [--gates dselect_k top_k ...] [--trials 25] [--json]``; trials are kept in
``runs/papers.jsonl`` and not run twice.

Source: Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
Multi-Task Learning", section 4.1: synthetic regressions in groups of related tasks, of which each gate should give its
own few experts, and related ones the same. Tasks of a group have weights that correlate .9 and those of different
groups none: y = w x + sum sin(a w x + b) + noise. Each gate is static, over 16 experts, k = 4. A trial draws learning
rate, regularisation and seed, the same for all gates; the best twentieth of the trials by validation error counts, on
test rows. Reported are the test error (mean squared, labels having variance 1), the experts that a task uses, and the
Jaccard index of the selections of related and of unrelated tasks. Intervals: of the best trials by drawing trials anew
(bootstrap), of all trials by Student's t; the differences to `softmax` are paired by trial, with p adjusted by Holm.

The tasks' gates are the rows of one: a gate's rule works row by row, and 128 modules would cost 128 times the calls.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.ledger import Ledger
from benchmarks.paired import p_value, paired
from benchmarks.report import Case, arguments, finish
from benchmarks.task_gates import TaskGates
from models.experts.expert_mlp import Experts
from models.layers.mlp import BlockConfig
from pipeline.console import progress_of
from pipeline.evaluation.multiple_tests import holm

INPUTS, GROUPS, CORRELATION, WAVES = 10, 4, 0.9, 4
EXPERTS, K, WIDTH = 16, 4, 16
ROWS, STEPS, BATCH = 6000, 600, 256
BEST = 0.05
DRAWS = 2000
LEDGER = Path("runs/papers.jsonl")
BASE = "softmax"
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


@cache
def world(tasks: int) -> Data:
    """The one world of all trials."""
    return generate(tasks, seed=0)


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
    """Experts for all tasks, a static gate and a linear head for each."""

    def __init__(self, config: dict[str, Any], tasks: int) -> None:
        super().__init__()
        self.experts = Experts(INPUTS, EXPERTS, (WIDTH, WIDTH), BlockConfig("relu", "none", 0.0, residual=False))
        self.gates = TaskGates(config, EXPERTS, tasks)
        self.heads = nn.Parameter(torch.randn(tasks, WIDTH) * WIDTH**-0.5)
        self.biases = nn.Parameter(torch.zeros(tasks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Answers [rows, tasks], the mean of the gates' penalties, and their selections [tasks, experts]."""
        routing = self.gates()
        mixed = torch.einsum("te,beo->bto", routing.weights_BE, self.experts(x))
        penalty = sum(routing.penalties.values(), x.new_zeros(()))
        return (mixed * self.heads).sum(2) + self.biases, penalty, routing.selected_BE


def trial(gate: str, tasks: int, number: int) -> Trial:
    """Train once with settings drawn by the trial's number, the same for every gate."""
    draw = np.random.default_rng(number)
    rate, entropy = 10 ** draw.uniform(-3.0, -1.7), 10 ** draw.uniform(-2.5, 0.0)
    data = world(tasks)
    config = dict(GATES[gate])
    if config["name"] in {"dselect_k", "comet"}:
        config["entropy"] = {"start": 0.0, "end": float(entropy), **_LATE}
    torch.manual_seed(number)
    model = Mixture(config, tasks)
    optimiser = torch.optim.Adam(model.parameters(), lr=float(rate), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, float(rate), total_steps=STEPS)
    train, valid = ROWS * 2 // 3, ROWS * 5 // 6
    for step in range(STEPS):
        model.gates.step(step)
        rows = torch.randint(0, train, (BATCH,))
        answers, penalty, _ = model.train()(data.x[rows])
        optimiser.zero_grad()
        ((answers - data.y[rows]).square().mean() + penalty).backward()
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


def best(trials: Sequence[Trial]) -> list[Trial]:
    """The best twentieth by validation error, one at least."""
    return sorted(trials, key=lambda each: each.valid)[: max(1, round(BEST * len(trials)))]


def redrawn(trials: Sequence[Trial]) -> tuple[float, float]:
    """A 95 % interval of the best trials' test error, were as many trials drawn again from these (bootstrap)."""
    draw = np.random.default_rng(0)
    chosen = ([trials[place] for place in draw.integers(0, len(trials), len(trials))] for _ in range(DRAWS))
    errors = [statistics.fmean(each.test for each in best(drawn)) for drawn in chosen]
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(low), float(high)


def cases(gate: str, tasks: int, trials: Sequence[Trial]) -> Iterator[Case]:
    """Of the best trials each figure with its range, and the test error of all trials."""
    name, kept, tests = f"{gate}, {tasks} tasks", best(trials), [each.test for each in trials]
    error = statistics.fmean(each.test for each in kept)
    yield Case(f"{name}: test error, best", error, "mse", None, "lower", len(trials), redrawn(trials))
    whole = paired(tests, [0.0] * len(tests))
    yield Case(
        f"{name}: test error, all trials", whole.mean, "mse", None, "lower", len(tests), (whole.low, whole.high)
    )  # fmt: skip
    for words, figure in (
        ("experts per task", "experts"),
        ("Jaccard, related", "related"),
        ("Jaccard, unrelated", "unrelated"),
    ):
        values = [getattr(each, figure) for each in kept]
        spread = (min(values), max(values))
        yield Case(f"{name}: {words}", statistics.fmean(values), figure, None, "lower", len(values), spread)


def table(found: dict[str, list[Trial]]) -> str:
    """Gates in Markdown: the best trials, and the mean of all with its difference to softmax, trial by trial."""
    base = [each.test for each in found[BASE]] if BASE in found else None
    others = [gate for gate in found if base is not None and gate != BASE]
    p = holm(np.array([p_value([t.test for t in found[g]], base or []) for g in others]), np.ones(len(others)))
    adjusted = dict(zip(others, p, strict=True))
    heads = [
        "gate",
        "best trials",
        "experts per task",
        "Jaccard, related",
        "unrelated",
        "all trials",
        "to softmax",
        "p, Holm",
    ]
    rows = [heads, ["---"] * len(heads)]
    for gate, trials in found.items():
        error, whole, *rest = cases(gate, 0, trials)
        gap = str(paired([t.test for t in trials], base)) if base is not None and gate != BASE else ""
        low, high = error.spread
        rows.append([
            f"`{gate}`", f"{error.value:.4f} ({low:.4f} .. {high:.4f})", *(f"{each.value:.2f}" for each in rest),
            f"{whole.value:.4f}", gap, f"{adjusted[gate]:.3f}" if gate in adjusted else "",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def kept_trial(ledger: Ledger, gate: str, tasks: int, number: int) -> Trial:
    """Look a trial up, or run it."""
    setting = [GATES[gate], tasks, number, ROWS, STEPS, BATCH, EXPERTS, WIDTH]
    return Trial(**ledger.figures(json.dumps(setting, sort_keys=True), lambda: asdict(trial(gate, tasks, number))))


def main() -> int:
    """Run every gate's trials, then print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[16, 128], help="how many tasks (default 16 128)")
    parser.add_argument("--gates", nargs="+", default=list(GATES), choices=list(GATES), help="(default all)")
    parser.add_argument("--trials", type=int, default=25, help="of each gate (default 25)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ledger, rows = Ledger(LEDGER), []
    for tasks in options.tasks:
        found: dict[str, list[Trial]] = {gate: [] for gate in options.gates}
        with progress_of("papers") as progress:
            # Gates in turns: an interruption leaves paired trials.
            for number in range(options.trials):
                progress(f"{tasks} tasks, trial {number + 1} of {options.trials}")
                for gate, trials in found.items():
                    trials.append(kept_trial(ledger, gate, tasks, number))
        print(f"\n{tasks} tasks, {options.trials} trials of each gate\n\n{table(found)}\n", flush=True)
        rows += [case for gate, trials in found.items() for case in cases(gate, tasks, trials)]
    return finish("papers", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
