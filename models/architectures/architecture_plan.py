"""What an architecture is made of, as plain data: levels of expert sets, gates over them, and streams between levels.

Level 0 has one input stream, the shared representation; each later level reads the streams that the level before it
makes, and the task towers read those of the last. `models.experts.level` builds the modules.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from contract.errors import ConfigError
from contract.settings import Settings


class PlanRequest(NamedTuple):
    """What the rest of the model's configuration asks of an architecture."""

    tasks: tuple[str, ...]
    experts: int
    shared_gate: bool


@dataclass(frozen=True)
class ExpertSet:
    """Experts that read the joined `reads` streams, by way of their own feature gate if they have one.

    `owners` are the tasks (by index) that the set was made for; all tasks for a shared set.
    """

    experts: int
    owners: tuple[int, ...]
    reads: tuple[int, ...] = (0,)
    feature_gate: bool = False
    always: bool = False
    """Every row takes all of them: they are computed densely, and stand after the routed sets of their level."""


@dataclass(frozen=True)
class GatePlan:
    """A gate over the experts of some sets, whatever `model.gate` says: ``self`` weighs, ``always`` adds them all.

    `reads`: the streams that it routes by. `tasks`: whose answers it serves, by index.
    """

    sets: tuple[int, ...]
    tasks: tuple[int, ...]
    reads: tuple[int, ...] = (0,)
    kind: Literal["chosen", "self", "always"] = "chosen"
    teaches: tuple[int, ...] | None = None
    """The sets to whose experts gradients go back; None: all that it weighs."""


@dataclass(frozen=True)
class LevelPlan:
    """One level. `streams`: each output stream is the sum of the mixtures of these gates."""

    sets: tuple[ExpertSet, ...]
    gates: tuple[GatePlan, ...]
    streams: tuple[tuple[int, ...], ...]
    swish: bool = False
    """Experts are batch normalised with the activation SiLU, whatever the configuration says."""

    @property
    def experts(self) -> int:
        """How many experts the level has."""
        return sum(each.experts for each in self.sets)

    def taught(self, gate: GatePlan) -> list[bool]:
        """Whether gradients of a gate's mixture go back to each expert of the level."""
        taught = gate.sets if gate.teaches is None else gate.teaches
        return [place in taught for place, each in enumerate(self.sets) for _ in range(each.experts)]

    def experts_of(self, gate: GatePlan) -> list[int]:
        """The experts of this level that a gate weighs, in its own order."""
        first = [0, *accumulate(each.experts for each in self.sets)]
        return [e for s in gate.sets for e in range(first[s], first[s + 1])]


@dataclass(frozen=True)
class ArchitecturePlan:
    """All levels, and which stream of the last level (of the shared representation, without levels) a tower reads."""

    levels: tuple[LevelPlan, ...]
    task_streams: tuple[int, ...]
    own_embeddings: bool = False
    """Level 0 reads one stream for each task, of its share of every embedding, and a last one of the shared share."""

    @property
    def experts(self) -> int:
        """How many experts there are on all levels."""
        return sum(level.experts for level in self.levels)

    def gates(self) -> Iterator[tuple[int, LevelPlan, GatePlan]]:
        """Every gate with its level and the number of the level's first expert among all experts."""
        first = 0
        for level in self.levels:
            for gate in level.gates:
                yield first, level, gate
            first += level.experts

    def owners(self) -> list[tuple[int, ...]]:
        """The tasks that each expert was made for."""
        return [each.owners for level in self.levels for each in level.sets for _ in range(each.experts)]


def refuse_shared_gate(request: PlanRequest, name: str) -> None:
    """Refuse one gate for all tasks where each has experts that only its own gate weighs.

    Raises:
        ConfigError: `model.gate_scope` is shared.
    """
    if request.shared_gate:
        message = (
            f"model.gate_scope is shared, but architecture {name} gives each task a gate over experts of its own, "
            "which no other task may weigh: use per_task, or the architecture mmoe with private_experts"
        )
        raise ConfigError(message)


class Architecture(Settings, ABC):
    """The base of all architectures' settings."""

    @abstractmethod
    def plan(self, request: PlanRequest) -> ArchitecturePlan:
        """Lay out levels and streams.

        Raises:
            ConfigError: the settings do not fit the tasks or the rest of the model.
        """
