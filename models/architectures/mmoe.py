"""Multi-gate mixture of experts, with one gate per task or one for all, and private experts beside it.

Source: Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
equations 5 to 7. Experts shared under one selection beside experts of each task's own bound the union of what the
tasks select, which is what a sparse graph computes.
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
)


class MMoEConfig(Architecture):
    """`experts` experts for all tasks."""

    name: Literal["mmoe"] = "mmoe"
    shared_experts: Annotated[int, Field(ge=0)] = 0
    """Experts that every row of every task takes, added with weight 1 (DeepSeekMoE, equation 9): what all rows need is
    learned once, and the routed experts are free to differ. The graph computes them densely."""
    private_experts: Annotated[int, Field(ge=0)] = 0
    """Experts of each task's own, always computed and added, weighed by a self gate. With ``gate_scope: shared``, the
    tasks then select at most k + tasks x private experts together, and not k x tasks."""

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """One level: the routed set first, then each task's own, and last the experts that all rows take."""
        tasks = tuple(range(len(request.tasks)))
        private = tasks if self.private_experts else ()
        sets = [ExpertSet(request.experts, tasks), *(ExpertSet(self.private_experts, (t,)) for t in private)]
        served = [tasks] if request.shared_gate else [(t,) for t in tasks]
        gates = [GatePlan((0,), each) for each in served]
        gates += [GatePlan((1 + t,), (t,), kind="self") for t in private]
        streams: tuple[tuple[int, ...], ...]
        if not private:
            streams = tuple((g,) for g in range(len(served)))
        else:
            streams = tuple((0 if request.shared_gate else t, len(served) + t) for t in tasks)
        if self.shared_experts:
            sets.append(ExpertSet(self.shared_experts, tasks, always=True))
            gates.append(GatePlan((len(sets) - 1,), tasks, kind="always"))
            streams = tuple((*stream, len(gates) - 1) for stream in streams)
        level = LevelPlan(tuple(sets), tuple(gates), streams)
        return ArchitecturePlan((level,), tuple(0 if len(streams) == 1 else t for t in tasks))
