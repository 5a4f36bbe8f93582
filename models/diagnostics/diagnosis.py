"""What expert health says in words, and what to try.

Source of the three anomalies: Wang et al. 2024, "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at
Kuaishou", section 1.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from models.diagnostics.expert_health import ExpertHealth

DEAD_SHARE = 1e-3
"""An expert that a smaller share of rows selects, in every task, is dead."""
ZERO_SHARE = 0.9
"""More zero activations than this is collapse (HoME observed over 90 %)."""
SCALE_RATIO = 10.0
"""So is an output scale that differs by more than this factor from the experts' median."""
OCCUPIED_SHARE = 0.9
"""A shared expert of whose weight one task has more than this is degraded."""
OWN_SHARE = 0.1
"""A task that gives less than this of its weight to its own experts does not fit them."""
CONVERGED_DISTANCE = 0.05
_MANY_TASKS = 2


def dead_experts(health: ExpertHealth) -> list[int]:
    """The experts, from 0, that no task uses."""
    return [e for e, shares in enumerate(zip(*health.share, strict=True)) if max(shares) < DEAD_SHARE]


def diagnose(health: ExpertHealth, tasks: Sequence[str]) -> list[str]:
    """A sentence for each thing that is wrong, with what to try; experts are counted from 1."""
    return [
        *_dead(health),
        *_collapse(health),
        *_degradation(health, tasks),
        *_underfitting(health, tasks),
        *_convergence(health, tasks),
    ]


def _dead(health: ExpertHealth) -> Iterator[str]:
    if dead := dead_experts(health):
        yield (
            f"dead: no task uses {_named(dead)}; try model.routing_norm batch if it is off, a lower or later "
            "gate.entropy, gate.regularisers.load_balance (0.01), or fewer experts"
        )


def _collapse(health: ExpertHealth) -> Iterator[str]:
    if silent := [e for e, zeros in enumerate(health.zeros) if zeros > ZERO_SHARE]:
        yield (
            f"collapse: more than {ZERO_SHARE:.0%} of the activations of {_named(silent)} are zero; try activation "
            "silu, norm batch, or the architecture home"
        )
    scales = sorted(scale for scale in health.scale if scale > 0)
    middle = scales[len(scales) // 2] if scales else 0.0
    far = [e for e, s in enumerate(health.scale) if s > 0 and not 1 / SCALE_RATIO <= s / middle <= SCALE_RATIO]
    if far:
        yield (
            f"collapse: the outputs of {_named(far)} are of another size than the others' by more than "
            f"{SCALE_RATIO:g} times, so gates cannot compare them; try norm batch or layer"
        )


def _degradation(health: ExpertHealth, tasks: Sequence[str]) -> Iterator[str]:
    if len(tasks) < _MANY_TASKS:
        return
    dead = set(dead_experts(health))
    for e, owners in enumerate(health.owners):
        weights = [row[e] for row in health.weight]
        total = sum(weights)
        if len(owners) < _MANY_TASKS or e in dead or total <= 0:
            continue
        largest = max(range(len(weights)), key=weights.__getitem__)
        if weights[largest] > OCCUPIED_SHARE * total:
            yield (
                f"degradation: {_named([e])} is shared, but {weights[largest] / total:.0%} of its weight is "
                f"{tasks[largest]}'s; try model.gate_scope shared, or an expert of that task's own (architecture "
                "mmoe with private_experts)"
            )


def _underfitting(health: ExpertHealth, tasks: Sequence[str]) -> Iterator[str]:
    for t, task in enumerate(tasks):
        own = [e for e, owners in enumerate(health.owners) if owners == [t]]
        total = sum(health.weight[t])
        if len(tasks) < _MANY_TASKS or not own or total <= 0:
            continue
        share = sum(health.weight[t][e] for e in own) / total
        if share < OWN_SHARE:
            yield (
                f"underfitting: {task} gives its own experts {share:.0%} of its weight; try the architecture home, "
                "whose self gates feed them, or a larger train.task_weights for it"
            )


def _convergence(health: ExpertHealth, tasks: Sequence[str]) -> Iterator[str]:
    for task, distance in zip(tasks, health.distance, strict=True):
        if distance is not None and distance > CONVERGED_DISTANCE:
            yield (
                f"not converged: the selectors of {task}'s gate are {distance:.2f} away from one-hot, so it still "
                "selects more experts than k; try more epochs, a larger gate.entropy or train.gate_learning_rate"
            )


def _named(experts: Sequence[int]) -> str:
    runs: list[list[int]] = [[experts[0]]]
    for before, expert in pairwise(experts):
        if expert == before + 1:
            runs[-1].append(expert)
        else:
            runs.append([expert])
    names = ", ".join(str(run[0] + 1) if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}" for run in runs)
    return f"expert{'s' if len(experts) > 1 else ''} {names}"
