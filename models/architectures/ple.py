"""Customised gate control (CGC) and its stack, progressive layered extraction (PLE).

Source: Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
Personalized Recommendations", equations 1 to 4 (CGC) and 5 to 7 (PLE).
"""

from typing import Annotated, Literal

from pydantic import Field

from models.architectures.architecture_plan import (
    Architecture,
    ArchitecturePlan,
    ExpertSet,
    GatePlan,
    LevelPlan,
    PlanRequest,
    refuse_shared_gate,
)

Count = Annotated[int, Field(ge=1)]


class CGCConfig(Architecture):
    """Each task's gate weighs the task's own experts and the `experts` shared ones, and no other task's."""

    name: Literal["cgc"] = "cgc"
    task_experts: Count = 1
    """Experts of each task's own."""

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """PLE with one level."""
        return layered(request, self.name, self.task_experts, 1)


class PLEConfig(Architecture):
    """CGC in several levels; all but the last also have a gate over all experts that feeds the next shared ones."""

    name: Literal["ple"] = "ple"
    levels: Count = 2
    """Levels, one on top of the other."""
    task_experts: Count = 1
    """Experts of each task's own, on each level."""

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """Levels from the shared representation up."""
        return layered(request, self.name, self.task_experts, self.levels)


def layered(request: PlanRequest, name: str, task_experts: int, levels: int) -> ArchitecturePlan:
    """The sets of a level are the tasks' own in order, then the shared one; so are the streams between levels."""
    refuse_shared_gate(request, name)
    tasks = tuple(range(len(request.tasks)))
    plans = tuple(_level(tasks, request.experts, task_experts, index, levels) for index in range(levels))
    return ArchitecturePlan(plans, tasks)


def _level(tasks: tuple[int, ...], shared: int, own: int, index: int, levels: int) -> LevelPlan:
    common = len(tasks)
    stream = [(0,) if index == 0 else (s,) for s in (*tasks, common)]
    sets = (*(ExpertSet(own, (t,), stream[t]) for t in tasks), ExpertSet(shared, tasks, stream[common]))
    gates = [GatePlan((t, common), (t,), stream[t]) for t in tasks]
    if index < levels - 1:
        gates.append(GatePlan((*tasks, common), tasks, stream[common]))
    return LevelPlan(sets, tuple(gates), tuple((g,) for g in range(len(gates))))
