"""Hierarchy of multi-gate experts (HoME): groups of tasks, a meta level and a task level.

Source: Wang et al. 2024, "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", section 3: expert
normalisation and Swish, the hierarchy mask, the feature gate and the self gate. The authors published no code; where
the text leaves a choice, this is it: a level's feature gates are one a set of experts, and a self gate adds the mixture
of the experts that belong to its group or task alone.
"""

from typing import Annotated, Literal

from pydantic import Field

from contract.errors import ConfigError
from models.architectures.architecture_plan import (
    Architecture,
    ArchitecturePlan,
    ExpertSet,
    GatePlan,
    LevelPlan,
    PlanRequest,
)

Count = Annotated[int, Field(ge=1)]


class HoMEConfig(Architecture):
    """Experts shared by all tasks, by the tasks of a group, and of each task alone, on a meta level and a task level.

    Each level has `experts` shared ones. Experts are batch normalised with SiLU (Swish), and read their input through a
    feature gate of low-rank maps.
    """

    name: Literal["home"] = "home"
    groups: dict[str, tuple[str, ...]] = {}
    """The tasks of each group by the group's name, every task once; none: one group of all."""
    group_experts: Count = 1
    """Experts of each group of tasks, on each level."""
    task_experts: Count = 1
    """Experts of each task, on the task level."""
    feature_rank: Count = 16
    """The rank of a feature gate's maps."""
    feature_gates: Count = 2
    """Maps of a feature gate."""

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """The meta level makes a stream a group and a shared one; the task level reads them."""
        if request.shared_gate:
            message = "model.gate_scope is shared, but the architecture home masks experts by task: use per_task"
            raise ConfigError(message)
        groups = self._groups(request.tasks)
        tasks = tuple(range(len(request.tasks)))
        group_of = {t: g for g, members in enumerate(groups) for t in members}
        task_level = self._task_level(request.experts, groups, [group_of[t] for t in tasks])
        return ArchitecturePlan((self._meta_level(request.experts, groups), task_level), tasks)

    def _groups(self, tasks: tuple[str, ...]) -> list[tuple[int, ...]]:
        named = self.groups or {"all": tasks}
        listed = [task for members in named.values() for task in members]
        if sorted(listed) != sorted(tasks):
            message = (
                f"model.architecture.groups lists the tasks {', '.join(listed) or 'none'}; each of these must stand "
                f"in exactly one group: {', '.join(tasks)}"
            )
            raise ConfigError(message)
        return [tuple(tasks.index(task) for task in members) for members in named.values()]

    def _meta_level(self, shared: int, groups: list[tuple[int, ...]]) -> LevelPlan:
        everyone = tuple(sorted(t for members in groups for t in members))
        count = len(groups)
        sets = [ExpertSet(self.group_experts, members, feature_gate=True) for members in groups]
        sets.append(ExpertSet(shared, everyone, feature_gate=True))
        gates = [GatePlan((g, count), members) for g, members in enumerate(groups)]
        gates.append(GatePlan(tuple(range(count + 1)), everyone))
        gates += [GatePlan((g,), members, kind="self") for g, members in enumerate(groups)]
        gates.append(GatePlan((count,), everyone, kind="self"))
        streams = tuple((g, count + 1 + g) for g in range(count + 1))
        return LevelPlan(tuple(sets), tuple(gates), streams, swish=True)

    def _task_level(self, shared: int, groups: list[tuple[int, ...]], group_of: list[int]) -> LevelPlan:
        tasks, count = tuple(range(len(group_of))), len(groups)
        routing = [(group_of[t], count) for t in tasks]
        sets = [ExpertSet(self.task_experts, (t,), (group_of[t],), feature_gate=True) for t in tasks]
        sets += [ExpertSet(self.group_experts, m, (g,), feature_gate=True) for g, m in enumerate(groups)]
        sets.append(ExpertSet(shared, tasks, (count,), feature_gate=True))
        first_group, last = len(tasks), len(tasks) + count
        gates = [GatePlan((t, first_group + group_of[t], last), (t,), routing[t]) for t in tasks]
        gates += [GatePlan((t,), (t,), routing[t], kind="self") for t in tasks]
        streams = tuple((t, len(tasks) + t) for t in tasks)
        return LevelPlan(tuple(sets), tuple(gates), streams, swish=True)
