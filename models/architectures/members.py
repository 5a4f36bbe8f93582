"""A plan with every level several times side by side: the members of an ensemble within one model.

Sources: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
section 3 (networks that differ by their start and by the order of chance alone, whose answers are averaged); Gorishniy
et al. 2025, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling", section 3 (the members are one
model, trained at once by the mean of their own losses). Here members share tables, the input's norm and the
interaction, and own all that follows: shared layers, experts, gates and towers.
"""

from dataclasses import replace

from models.architectures.architecture_plan import ArchitecturePlan, ExpertSet, GatePlan, LevelPlan


def in_members(plan: ArchitecturePlan, members: int, *, own_input: bool) -> ArchitecturePlan:
    """The plan of `members` networks; `task_streams` are those of the first member's tasks, then the second's.

    `own_input`: each member reads a shared representation of its own, as it must without levels, else all the same.

    >>> level = LevelPlan((ExpertSet(4, (0,)),), (GatePlan((0,), (0,)),), ((0,),))
    >>> two = in_members(ArchitecturePlan((level,), (0,)), 2, own_input=True)
    >>> two.experts, two.task_streams, [each.reads for each in two.levels[0].sets]
    (8, (0, 1), [(0,), (1,)])
    """
    if members == 1:
        return plan
    streams, levels = int(own_input), []
    for level in plan.levels:
        levels.append(_level(level, members, streams))
        streams = len(level.streams)
    task_streams = tuple(member * streams + stream for member in range(members) for stream in plan.task_streams)
    return replace(plan, levels=tuple(levels), task_streams=task_streams)


def _level(level: LevelPlan, members: int, streams: int) -> LevelPlan:
    """Each member reads `streams` streams of its own; 0: all read the same."""
    count = len(level.sets)
    # What every row takes stays behind the routed sets of all members.
    order = sorted(range(members * count), key=lambda place: level.sets[place % count].always)
    place_of = {place: now for now, place in enumerate(order)}

    def of_set(each: ExpertSet, member: int) -> ExpertSet:
        return replace(each, reads=tuple(member * streams + stream for stream in each.reads))

    def of_gate(gate: GatePlan, member: int) -> GatePlan:
        own = [place_of[member * count + each] for each in range(count)]
        return replace(
            gate,
            sets=tuple(own[each] for each in gate.sets),
            reads=tuple(member * streams + stream for stream in gate.reads),
            teaches=None if gate.teaches is None else tuple(own[each] for each in gate.teaches),
        )

    return replace(
        level,
        sets=tuple(of_set(level.sets[place % count], place // count) for place in order),
        gates=tuple(of_gate(gate, member) for member in range(members) for gate in level.gates),
        streams=tuple(
            tuple(member * len(level.gates) + gate for gate in stream)
            for member in range(members)
            for stream in level.streams
        ),
    )
