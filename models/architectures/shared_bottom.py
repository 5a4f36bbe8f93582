"""Shared bottom: one network for all tasks and a tower each; the baseline without experts.

Source: Caruana 1997, "Multitask Learning", section 2.
"""

from typing import Literal

from models.architectures.architecture_plan import Architecture, ArchitecturePlan, PlanRequest


class SharedBottomConfig(Architecture):
    """One network of the layers `bottom` and `expert_widths`; `experts` and `gate` have no meaning."""

    name: Literal["shared_bottom"] = "shared_bottom"

    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """No levels: every tower reads the shared representation."""
        return ArchitecturePlan(levels=(), task_streams=(0,) * len(request.tasks))
