"""From plain Python values to request messages, for clients."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

from contract.errors import RequestError
from contract.integers import INT64, signed
from serving.graph.arrays import WHOLE, Columnar, plain
from serving.stubs.moerank.v1 import ranking_pb2

T = TypeVar("T")
UINT32 = 2**32 - 1


def build_request(  # noqa: PLR0913 what one call may say
    *,
    user: int | str | None,
    items: Iterable[int] | Iterable[str],
    context: Mapping[str, Any] | None = None,
    user_features: Mapping[str, Any] | None = None,
    item_features: Mapping[str, Columnar] | None = None,
    top_k: int = 0,
    model: str = "",
    version: int = 0,
    debug: bool = False,
    score: str = "",
    greedy: bool = False,
) -> ranking_pb2.RankRequest:
    """A request message.

    Raises:
        RequestError: a value has a type that the service does not know, naming the field.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, WHOLE) or not 0 <= top_k <= UINT32:
        message = f"top_k is {top_k!r}; allowed are 1 to {UINT32}, and 0 for all candidates"
        raise RequestError(message, field="top_k")
    _integers("version", [version])
    _text("model", model)
    return ranking_pb2.RankRequest(
        model=model,
        version=version,
        user=_id(user),
        items=_ids(items),
        context=_by_name("context", context, value),
        user_features=_by_name("user_features", user_features, value),
        item_features=_by_name("item_features", item_features, column),
        top_k=int(top_k),
        debug=bool(debug),
        score=_text("score", score),
        greedy=bool(greedy),
    )


def _by_name(field: str, features: Any, made: Callable[[str, Any], T]) -> dict[str, T]:
    if features is not None and not isinstance(features, Mapping):
        message = f"{field} is a {type(features).__name__}; allowed is a mapping from names to values"
        raise RequestError(message, field=field)
    return {_text(field, name): made(f"{field}.{name}", each) for name, each in (features or {}).items()}


def _id(identity: int | str | None) -> ranking_pb2.Id | None:
    if identity is None:
        return None
    if isinstance(identity, str):
        return ranking_pb2.Id(text=_text("user", identity))
    return ranking_pb2.Id(integer=_integers("user", [identity])[0])


def listed(items: Any) -> list[Any]:
    """Candidates as a list, which may be read twice.

    Raises:
        RequestError: one text, which would be a candidate a letter, or nothing that can be listed.
    """
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        message = f"items is {items!r}; allowed is a list of ids, of one candidate, too"
        raise RequestError(message, field="items")
    return list(items)


def _ids(items: Iterable[int] | Iterable[str]) -> ranking_pb2.Ids:
    ids = listed(items)
    texts = [item for item in ids if isinstance(item, str)]
    if texts and len(texts) == len(ids):
        return ranking_pb2.Ids(texts=ranking_pb2.TextList(values=[_text("items", text) for text in texts]))
    if texts and any(isinstance(item, WHOLE) for item in ids):
        number = next(item for item in ids if isinstance(item, WHOLE))
        message = (
            f"items holds texts and whole numbers, such as {texts[0][:80]!r} and {number!r}; "
            "allowed are 64-bit integers throughout, or strings throughout"
        )
        raise RequestError(message, field="items")
    return ranking_pb2.Ids(integers=ranking_pb2.IntegerList(values=_integers("items", ids)))


def _text(field: str, text: Any) -> str:
    """A string that has a form in UTF-8; half of a surrogate pair has none."""
    if not isinstance(text, str):
        message = f"{field} holds {text!r} where a text belongs"
        raise RequestError(message, field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{field} holds {text[:40]!r}, which is not valid Unicode text ({error.reason})"
        raise RequestError(message, field=field) from error
    return text


def _integers(field: str, values: Sequence[Any]) -> list[int]:
    for each in values:
        if isinstance(each, bool) or not isinstance(each, WHOLE) or not INT64[0] <= each < 2**64:
            message = f"{field} holds {each!r}; allowed are 64-bit integers, or strings throughout"
            raise RequestError(message, field=field)
    return [signed(int(each)) for each in values]


def value(field: str, content: Any) -> ranking_pb2.Value:
    """One feature's value: None, bool, int, float, Decimal, str, a date, a datetime, or a list of those.

    Raises:
        RequestError: of another type, or an integer beyond 64 bits.
    """
    content = plain(content)
    if isinstance(content, dt.date):  # a datetime is one, too
        content = content.isoformat()
    if content is None:
        return ranking_pb2.Value(null=ranking_pb2.NULL_UNSPECIFIED)
    if isinstance(content, bool):
        return ranking_pb2.Value(flag=content)
    if isinstance(content, int):
        return ranking_pb2.Value(integer=_integers(field, [content])[0])
    if isinstance(content, float | Decimal):
        return ranking_pb2.Value(number=float(content))
    if isinstance(content, str):
        return ranking_pb2.Value(text=_text(field, content))
    if isinstance(content, list | tuple | set | frozenset):
        return ranking_pb2.Value(values=ranking_pb2.ValueList(values=[value(field, each) for each in content]))
    message = (
        f"{field} is a {type(content).__name__}; allowed are None, bool, int, float, str, dates and lists of those"
    )
    raise RequestError(message, field=field)


def column(field: str, contents: Columnar) -> ranking_pb2.Column:
    """One feature's values for all candidates, packed where all are of one type.

    Raises:
        RequestError: as `value`.
    """
    values = list(plain(contents))
    kinds = {type(each) for each in values}
    if kinds == {float}:
        return ranking_pb2.Column(numbers=ranking_pb2.NumberList(values=values))
    if kinds == {int}:
        return ranking_pb2.Column(integers=ranking_pb2.IntegerList(values=_integers(field, values)))
    if kinds == {str}:
        return ranking_pb2.Column(texts=ranking_pb2.TextList(values=[_text(field, each) for each in values]))
    if kinds == {bool}:
        return ranking_pb2.Column(flags=ranking_pb2.FlagList(values=values))
    return ranking_pb2.Column(values=ranking_pb2.ValueList(values=[value(field, each) for each in values]))
