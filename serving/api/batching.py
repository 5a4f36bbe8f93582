"""Which requests of a batch share a run of a model's graph."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from features.online.request_encoder import EncodedRequest, RankRequest
from serving.graph.answer import RankAnswer
from serving.graph.ordering import Ordering
from serving.graph.served_model import RankingModel

ENOUGH_ROWS = 512
"""Candidates after which a run is closed: more cost as much a row, and deadlines are looked at between runs."""


class PendingRequest(NamedTuple):
    """A request on its way, encoded for the model that answers it."""

    model: RankingModel
    shadow: RankingModel | None
    request: RankRequest
    encoded: EncodedRequest | None
    """None where it has a fallback answer."""
    top_k: int
    experts: bool
    """Whether the answer is to say which experts it took; such a request has a run of its own."""
    arm: str = "current"
    """By which arm of the traffic the model was chosen."""
    ordering: Ordering | None = None
    """By which formula it is ordered, and whether it explores."""
    request_id: str = ""
    """The call's, in a batch with the request's position: ``ID/0``."""
    debug: bool = False
    """Whether the answer is to say where its values came from."""
    stage: str = ""
    """How much of the model it gets."""
    fallback: RankAnswer | None = None
    """The answer, where there was no time for the model."""

    @property
    def alone(self) -> bool:
        """Whether it cannot share a run with others."""
        cascades = self.model.graphs.stages.cascades(len(self.request.items))
        return self.model.graphs.packed is None or self.experts or bool(self.stage) or cascades


def runs_of(pending: Sequence[PendingRequest]) -> Iterator[list[int]]:
    """Positions by run: requests to one model share one, where its bundle has the graph for several requests."""
    filling: dict[int, list[int]] = {}
    rows: Counter[int] = Counter()
    for position, each in enumerate(pending):
        if each.alone or each.encoded is None:
            yield [position]
            continue
        model = id(each.model)
        filling.setdefault(model, []).append(position)
        rows[model] += each.encoded.inputs.candidate.rows
        if rows[model] >= ENOUGH_ROWS:
            del rows[model]
            yield filling.pop(model)
    yield from filling.values()
