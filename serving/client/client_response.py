"""What a client asks and gets, in plain Python. Shape legend: N candidates, K of them ordered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from serving.client import client_request
from serving.graph.answer import ExpertUse, GateUse, RankAnswer
from serving.graph.arrays import Columnar, Floats, floats, matrix, positions
from serving.stubs.moerank.v1 import ranking_pb2


@dataclass(frozen=True)
class RankResult:
    """An answer beside the ids that were asked about."""

    items: Sequence[int] | Sequence[str]
    answer: RankAnswer

    @property
    def model(self) -> str:
        """The model that answered."""
        return self.answer.model

    @property
    def version(self) -> int:
        """Its version."""
        return self.answer.version

    @property
    def predictions(self) -> Mapping[str, Floats]:
        """Predictions by task, float32 [N], in the order of `items`."""
        return self.answer.predictions

    @property
    def scores(self) -> Floats:
        """The combined scores, float32 [N], in the order of `items`."""
        return self.answer.scores

    @property
    def unknown_user(self) -> bool:
        """The server knows nothing about the user."""
        return self.answer.unknown_user

    @property
    def request_id(self) -> str:
        """Names this call in the server's log."""
        return self.answer.request_id

    @property
    def arm(self) -> str:
        """``current`` or ``canary``."""
        return self.answer.arm

    @property
    def experts(self) -> ExpertUse | None:
        """Which experts were used; None unless the query asked for it with `debug`."""
        return self.answer.experts

    @property
    def stage(self) -> str:
        """``cascade``, ``fewer experts`` or ``fallback`` where less than the whole model answered; else empty."""
        return self.answer.stage

    @property
    def propensities(self) -> Floats | None:
        """The probability [K] of each place's candidate, given those before it; None without exploration."""
        return self.answer.propensities

    @cached_property
    def ranked(self) -> list[int] | list[str]:
        """The ids [K], best first."""
        return [self.items[position] for position in self.answer.order]

    @cached_property
    def unknown_items(self) -> list[int] | list[str]:
        """The ids that the server does not know."""
        return [self.items[position] for position in self.answer.unknown_items]


@dataclass(frozen=True)
class Query:
    """One user with candidates, as `RankingClient.rank` takes it."""

    user: int | str | None
    items: Sequence[int] | Sequence[str]
    context: Mapping[str, Any] | None = None
    user_features: Mapping[str, Any] | None = None
    item_features: Mapping[str, Columnar] | None = None
    top_k: int = 0
    debug: bool = False
    score: str = ""
    """The name of the formula to order by; empty: the server's policy chooses."""
    greedy: bool = False
    """Order by the score alone, also where the server explores."""

    def message(self, model: str, version: int) -> ranking_pb2.RankRequest:
        """The request message.

        Raises:
            RequestError: a value has a type that the service does not know.
        """
        return client_request.build_request(**vars(self), model=model, version=version)


def answer_from(message: ranking_pb2.RankResponse) -> RankAnswer:
    """Arrays from a response message."""
    return RankAnswer(
        model=message.model,
        version=message.version,
        predictions={task: floats(predictions.values) for task, predictions in sorted(message.predictions.items())},
        scores=floats(message.scores),
        order=positions(message.order),
        score_version=message.score_version,
        unknown_user=message.unknown_user,
        unknown_items=positions(message.unknown_items),
        experts=_experts_from(message.experts) if message.HasField("experts") else None,
        missing_context=tuple(message.missing_context),
        unseen_context=tuple(message.unseen_context),
        clipped=dict(message.clipped),
        sources=dict(message.sources),
        request_id=message.request_id,
        arm=message.arm,
        score_name=message.score_name,
        stage=message.stage,
        refined=message.refined,
        exploration=message.exploration,
        propensities=floats(message.propensities) if message.exploration else None,
    )


def _experts_from(message: ranking_pb2.ExpertUse) -> ExpertUse:
    return ExpertUse(
        tuple(GateUse(gate.level, tuple(gate.tasks), matrix(gate.weights, gate.experts)) for gate in message.gates)
    )
