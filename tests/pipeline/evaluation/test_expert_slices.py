"""How gates are named on a page."""

from pipeline.evaluation.expert_slices import ExpertSlices, GateSlices


def test_gates_of_the_same_tasks_are_told_apart() -> None:
    served = [(0, ("like",)), (0, ("like",)), (0, ("watch",)), (1, ("like", "watch"))]
    use = ExpertSlices(rows=1, gates=tuple(GateSlices(level=level, tasks=tasks, slices=()) for level, tasks in served))
    assert [use.title(place) for place in range(4)] == [
        "like, level 1, gate 1 of 2",
        "like, level 1, gate 2 of 2",
        "watch, level 1",
        "like, watch, level 2",
    ]
    assert use.model_copy(update={"gates": use.gates[2:3]}).title(0) == "watch"
