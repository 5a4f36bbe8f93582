"""Between protobuf messages and plain Python values. Shape legend: N candidate rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from contract.errors import RequestError
from features.online.request_encoder import RankRequest, no_check
from serving.api.answer_writer import body_of, delimited
from serving.graph.answer import ExpertUse, RankAnswer
from serving.graph.message_values import value_from
from serving.stubs.moerank.v1 import ranking_pb2
from serving.stubs.moerank.wire.v1 import ranking_pb2 as wire_pb2

M = TypeVar("M", bound=Message)
MAX_FEATURES = 4096
"""How many features one side of a request may name."""


def parse(kind: type[M], body: bytes) -> M:
    """A message from its bytes.

    Raises:
        RequestError: the bytes are no such message.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        message = (
            f"the request's bytes are not a {kind.DESCRIPTOR.full_name}; check that both sides use the same .proto"
        )
        raise RequestError(message, field="") from error


def request_from(message: ranking_pb2.RankRequest, check: Callable[[], None] = no_check) -> RankRequest:
    """Plain values from a message; `check` is called between them, and may raise.

    Raises:
        RequestError: too many values, or one that has no meaning; naming the field.
    """
    user, items = _id_from(message.user), items_from(message.items)
    # Each is asked for once: what a message gives for a map costs more than most maps hold.
    context, of_user, of_items = message.context, message.user_features, message.item_features
    if not (context or of_user or of_items):
        return RankRequest(user, items)
    for field, given in (("context", context), ("user_features", of_user), ("item_features", of_items)):
        if len(given) > MAX_FEATURES:
            text = f"{field} names {len(given)} features; allowed are {MAX_FEATURES}"
            raise RequestError(text, field=field)
    return RankRequest(
        user=user,
        items=items,
        context=_values_from("context", context),
        user_features=_values_from("user_features", of_user),
        item_features={
            name: _column_from(f"item_features.{name}", column, len(items), check) for name, column in of_items.items()
        },
    )


def count_items(items: ranking_pb2.Ids) -> int:
    """How many candidates a request has, without copying them."""
    kind = items.WhichOneof("kind")
    return len(getattr(items, kind).values) if kind else 0


def items_from(items: ranking_pb2.Ids) -> list[int] | list[str]:
    """The candidates' ids."""
    if items.WhichOneof("kind") == "integers":
        return list(items.integers.values)
    return list(items.texts.values)


def key_of(identity: ranking_pb2.Id) -> str:
    """The user's id as text, by which requests are shared out; empty if there is none."""
    user = _id_from(identity)
    return "" if user is None else str(user)


def _id_from(identity: ranking_pb2.Id) -> int | str | None:
    kind = identity.WhichOneof("kind")
    if kind is None:
        return None
    return identity.integer if kind == "integer" else identity.text


def _values_from(field: str, values: Mapping[str, ranking_pb2.Value]) -> dict[str, Any]:
    return {name: value_from(f"{field}.{name}", value) for name, value in values.items()}


def _column_from(field: str, column: ranking_pb2.Column, count: int, check: Callable[[], None]) -> Sequence[Any]:
    check()
    kind = column.WhichOneof("kind")
    if kind is None:
        message = f"{field} is empty; give one value for each candidate"
        raise RequestError(message, field=field)
    values = getattr(column, kind).values
    if len(values) != count:
        message = f"{field} has {len(values)} values for {count} items; send one value per item, in their order"
        raise RequestError(message, field=field)
    if kind == "values":
        return list(_each_from(field, values, check))
    return list(values)


def _each_from(field: str, values: Iterable[ranking_pb2.Value], check: Callable[[], None]) -> Iterator[Any]:
    for value in values:
        check()
        yield value_from(field, value)


def answer_bytes(answer: RankAnswer, *, debug: bool = False) -> bytes:
    """The bytes of a ``RankResponse``; `debug` tells which experts were used, if the answer knows."""
    return body_of(answer) + _rest(answer, debug=debug)


def batch_bytes(answers: Sequence[RankAnswer], debug: Sequence[bool]) -> bytes:
    """The bytes of a ``BatchRankResponse``; `debug` by answer, as in `answer_bytes`."""
    bodies = [answer_bytes(answer, debug=each) for answer, each in zip(answers, debug, strict=True)]
    number = ranking_pb2.BatchRankResponse.RESPONSES_FIELD_NUMBER
    return b"".join(piece for body in bodies for piece in (delimited(number, len(body)), body))


def _rest(answer: RankAnswer, *, debug: bool) -> bytes:
    """What few answers have."""
    remarks = answer.unknown_user or answer.missing_context or answer.unseen_context or answer.clipped
    if not (remarks or debug or answer.exploration or answer.stage):
        return b""
    return wire_pb2.RankResponse(
        unknown_user=answer.unknown_user,
        experts=_experts(answer.experts) if debug and answer.experts is not None else None,
        missing_context=answer.missing_context,
        unseen_context=answer.unseen_context,
        clipped=answer.clipped,
        sources=answer.sources if debug else None,
        score_name=answer.score_name,
        exploration=answer.exploration,
        stage=answer.stage,
        refined=answer.refined,
        propensities=b"" if answer.propensities is None else _little_endian(answer.propensities),
    ).SerializeToString()


def _experts(use: ExpertUse) -> wire_pb2.ExpertUse:
    gates = [
        wire_pb2.GateUse(
            level=gate.level,
            tasks=gate.tasks,
            experts=gate.weights.shape[1],
            weights=_little_endian(np.ascontiguousarray(gate.weights)),
        )
        for gate in use.gates
    ]
    return wire_pb2.ExpertUse(gates=gates, union_over_n=use.union_over_n)


def _little_endian(values: NDArray[np.float32] | NDArray[np.uint32]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
