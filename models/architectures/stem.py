"""Embeddings of each task's own beside shared ones, and experts that learn from their own task alone (STEM).

Source: Su et al. 2024, "STEM: Unleashing the Power of Embeddings for Multi-task Recommendation", section 4: every task
has embedding tables and experts of its own, shared ones stand beside them, and a task's gate weighs all experts, those
of other tasks without sending gradients back (all-forward task-specific-backward). So users and items may be near each
other for one task and far apart for another.

The paper's gates read the sum of the task's and the shared embeddings; here they read both side by side, of which the
sum is a special case. Numbers have no tables: every expert reads them as they are.
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


class STEMConfig(Architecture):
    """Each embedding's columns are dealt out in equal shares: one for each task, and the last for all of them.

    With two tasks, `embedding_dim` 24 is 8 columns for each task and 8 shared ones; it must be a multiple of four, too.
    """

    name: Literal["stem"] = "stem"
    task_experts: Annotated[int, Field(ge=1)] = 1
    """Experts of each task's own, beside the `experts` shared ones."""

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """One level: the tasks' own sets in order, then the shared one; so are the streams that they read."""
        refuse_shared_gate(request, self.name)
        tasks = tuple(range(len(request.tasks)))
        shared = len(tasks)
        own = (ExpertSet(self.task_experts, (t,), (t,)) for t in tasks)
        sets = (*own, ExpertSet(request.experts, tasks, (shared,)))
        gates = tuple(GatePlan((*tasks, shared), (t,), (t, shared), teaches=(t, shared)) for t in tasks)
        level = LevelPlan(sets, gates, tuple((g,) for g in tasks))
        return ArchitecturePlan((level,), tasks, own_embeddings=True)
