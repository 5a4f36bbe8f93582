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

All trials of a gate are trained side by side, and their tasks' gates are the rows of one: what costs time is not the
arithmetic but the number of calls.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.ledger import Ledger
from benchmarks.mixtures import Mixtures, Sizes, TrialAdam
from benchmarks.paired import p_value, paired
from benchmarks.report import Case, arguments, finish
from pipeline.console import progress_of
from pipeline.evaluation.multiple_tests import holm

INPUTS, GROUPS, CORRELATION, WAVES = 10, 4, 0.9, 4
EXPERTS, K, WIDTH = 16, 4, 16
ROWS, STEPS, BATCH = 6000, 600, 256
_TRAIN, _VALID = ROWS * 2 // 3, ROWS * 5 // 6
BEST = 0.05
DRAWS = 2000
LEDGER = Path("runs/papers.jsonl")
BASE = "softmax"
_SELECTIONS = {"experts per task": "experts", "Jaccard, related": "related", "Jaccard, unrelated": "unrelated"}
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


def trials(gate: str, tasks: int, numbers: Sequence[int]) -> list[Trial]:
    """Train once for each number, which draws the settings, the same for every gate; side by side."""
    draws = [np.random.default_rng(number) for number in numbers]
    settings = [(10 ** draw.uniform(-3.0, -1.7), 10 ** draw.uniform(-2.5, 0.0)) for draw in draws]
    rate_N, entropy_N = (torch.tensor(column).float() for column in zip(*settings, strict=True))
    data, config = world(tasks), dict(GATES[gate])
    if config["name"] in {"dselect_k", "comet"}:
        config["entropy"] = {"start": 0.0, "end": 1.0, **_LATE}
    model = Mixtures(config, Sizes(INPUTS, EXPERTS, WIDTH, tasks), numbers)
    optimiser = TrialAdam(model.parameters(), rate_N, STEPS)
    for step in range(STEPS):
        model.gates.step(step)
        rows_NB = torch.randint(0, _TRAIN, (len(numbers), BATCH))
        answers_NBT, penalty, _ = model.train()(data.x[rows_NB])
        errors_N = (answers_NBT - data.y[rows_NB]).square().mean((1, 2))
        # Adam's steps do not depend on the loss's scale, so a trial's weight of the entropy divides the error instead.
        optimiser.step((errors_N / entropy_N).sum() + len(numbers) * penalty)
    return judged(model, data)


@torch.no_grad()
def judged(model: Mixtures, data: Data) -> list[Trial]:
    """Each trial's errors and selections."""
    x_NRD = data.x.expand(model.trials, -1, -1)
    found = [(answers - y).square().mean(2) for answers, y in _in_parts(model.eval(), x_NRD, data.y)]
    errors_NR, selected_NTE = torch.cat(found, dim=1), model.selected()
    return [
        Trial(
            float(errors_R[_TRAIN:_VALID].mean()),
            float(errors_R[_VALID:].mean()),
            float(selected_TE.sum(1).float().mean()),
            *jaccards(selected_TE, data.groups),
        )
        for errors_R, selected_TE in zip(errors_NR, selected_NTE, strict=True)
    ]


def _in_parts(model: Mixtures, x_NRD: Tensor, y_RT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in zip(x_NRD.split(BATCH, dim=1), y_RT.split(BATCH), strict=True):
        yield model(x)[0], y


def jaccards(selected_TE: Tensor, groups: list[int]) -> tuple[float, float]:
    """The mean Jaccard index of the selections of related tasks, and that of unrelated ones."""
    chosen_TE, group_T = selected_TE.double(), torch.tensor(groups)
    both_TT, counts_T = chosen_TE @ chosen_TE.t(), chosen_TE.sum(1)
    indices_TT = both_TT / (counts_T.unsqueeze(1) + counts_T - both_TT)
    pairs_TT = torch.ones_like(indices_TT, dtype=torch.bool).triu(1)
    alike_TT = group_T.unsqueeze(1) == group_T
    return float(indices_TT[pairs_TT & alike_TT].mean()), float(indices_TT[pairs_TT & ~alike_TT].mean())


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
    for words, figure in _SELECTIONS.items():
        for among, some in (("best", kept), ("all trials", trials)):
            values = [getattr(each, figure) for each in some]
            spread = (min(values), max(values))
            case = f"{name}: {words}, {among}"
            yield Case(case, statistics.fmean(values), figure, None, "lower", len(values), spread)


def table(found: dict[str, list[Trial]]) -> str:
    """Gates in Markdown: the best trials, and the mean of all with its difference to softmax, trial by trial."""
    base = [each.test for each in found[BASE]] if BASE in found else None
    others = [gate for gate in found if base is not None and gate != BASE]
    p = holm(np.array([p_value([t.test for t in found[g]], base or []) for g in others]), np.ones(len(others)))
    adjusted = dict(zip(others, p, strict=True))
    heads = [
        "gate",
        "best trials",
        "all trials",
        "to softmax",
        "p, Holm",
        *(f"{words}: best, all" for words in _SELECTIONS),
    ]
    rows = [heads, ["---"] * len(heads)]
    for gate, trials in found.items():
        error, whole, *rest = cases(gate, 0, trials)
        gap = str(paired([t.test for t in trials], base)) if base is not None and gate != BASE else ""
        low, high = error.spread
        rows.append([
            f"`{gate}`", f"{error.value:.4f} ({low:.4f} .. {high:.4f})", f"{whole.value:.4f}", gap,
            f"{adjusted[gate]:.3f}" if gate in adjusted else "",
            *(f"{few.value:.2f}, {all_.value:.2f}" for few, all_ in zip(rest[::2], rest[1::2], strict=True)),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def kept_trials(ledger: Ledger, gate: str, tasks: int, count: int) -> list[Trial]:
    """Look the first trials up, and run those that were not run before."""
    setting = [GATES[gate], tasks, ROWS, STEPS, BATCH, EXPERTS, WIDTH]
    keys = [json.dumps([number, *setting], sort_keys=True) for number in range(count)]
    missing = [number for number, key in enumerate(keys) if key not in ledger.known]
    fresh = zip(missing, trials(gate, tasks, missing) if missing else (), strict=True)
    for number, trial in fresh:
        ledger.keep(keys[number], asdict(trial))
    return [Trial(**ledger.known[key]) for key in keys]


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
        found: dict[str, list[Trial]] = {}
        with progress_of("papers") as progress:
            for gate in options.gates:
                progress(f"{tasks} tasks, {gate}")
                found[gate] = kept_trials(ledger, gate, tasks, options.trials)
        print(f"\n{tasks} tasks, {options.trials} trials of each gate\n\n{table(found)}\n", flush=True)
        rows += [case for gate, trials in found.items() for case in cases(gate, tasks, trials)]
    return finish("papers", rows, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
