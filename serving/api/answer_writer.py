"""The bytes of a ranking answer, written around its arrays as they lie in memory.

Each piece is an encoding of `moerank.v1.RankResponse` with some of its fields; encodings one behind the other are one
message. What depends on the model and on the number of candidates alone is made once.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from serving.graph.answer import RankAnswer
from serving.stubs.moerank.v1 import ranking_pb2

_ANSWER, _ENTRY = ranking_pb2.RankResponse, ranking_pb2.RankResponse.PredictionsEntry
_LENGTH_DELIMITED = 2
_CONTINUED = 0x80
_FLOAT = np.dtype("<f4")
_WORD = np.dtype("<u4")


def body_of(answer: RankAnswer) -> bytes:
    """All fields that every answer has, encoded: predictions, scores, order, and who answered."""
    model = _model(answer.model, answer.version, answer.score_version, answer.arm, answer.score_name)
    pieces = [model, _text(_ANSWER.REQUEST_ID_FIELD_NUMBER, answer.request_id)]
    frames = _frames(tuple(answer.predictions), len(answer.scores), len(answer.order))
    for frame, values in zip(frames, (*answer.predictions.values(), answer.scores), strict=False):
        pieces += (frame, _little_endian(values, _FLOAT))
    pieces += (frames[-1], _little_endian(answer.order, _WORD))
    if len(answer.unknown_items):
        unknown = _little_endian(answer.unknown_items, _WORD)
        pieces += (_before(_ANSWER.UNKNOWN_ITEMS_FIELD_NUMBER, len(answer.unknown_items)), unknown)
    return b"".join(pieces)


def delimited(number: int, length: int) -> bytes:
    """What stands before `length` bytes of a field."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


@lru_cache(maxsize=64)
def _model(model: str, version: int, score_version: str, arm: str, score_name: str) -> bytes:
    return ranking_pb2.RankResponse(
        model=model, version=version, score_version=score_version, arm=arm, score_name=score_name
    ).SerializeToString()


@lru_cache(maxsize=1024)
def _frames(tasks: tuple[str, ...], count: int, ordered: int) -> tuple[bytes, ...]:
    """What stands before each task's predictions, before the scores, and before the order."""
    scores = _before(_ANSWER.SCORES_FIELD_NUMBER, count)
    order = _before(_ANSWER.ORDER_FIELD_NUMBER, ordered)
    return (*(_before_prediction(task, count) for task in tasks), scores, order)


@lru_cache(maxsize=4096)
def _before(field: int, count: int) -> bytes:
    """What stands before an array of so many numbers of 32 bits."""
    return delimited(field, 4 * count)


def _before_prediction(task: str, count: int) -> bytes:
    values = delimited(ranking_pb2.Predictions.VALUES_FIELD_NUMBER, 4 * count)
    name = _text(_ENTRY.KEY_FIELD_NUMBER, task)
    value = delimited(_ENTRY.VALUE_FIELD_NUMBER, len(values) + 4 * count)
    entry = delimited(_ANSWER.PREDICTIONS_FIELD_NUMBER, len(name) + len(value) + len(values) + 4 * count)
    return entry + name + value + values


def _text(number: int, text: str) -> bytes:
    content = text.encode()
    return _before_text(number, len(content)) + content


@lru_cache(maxsize=256)
def _before_text(number: int, length: int) -> bytes:
    return delimited(number, length)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have the highest bit set."""
    encoded = bytearray()
    while number >= _CONTINUED:
        encoded.append(number & (_CONTINUED - 1) | _CONTINUED)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _little_endian(values: NDArray[np.float32] | NDArray[np.uint32], dtype: np.dtype[np.generic]) -> bytes:
    return values.tobytes() if values.dtype == dtype else values.astype(dtype).tobytes()
