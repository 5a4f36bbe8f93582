from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Predictions(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    def __init__(self, values: _Optional[bytes] = ...) -> None: ...

class GateUse(_message.Message):
    __slots__ = ("level", "tasks", "experts", "weights")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    level: int
    tasks: _containers.RepeatedScalarFieldContainer[str]
    experts: int
    weights: bytes
    def __init__(self, level: _Optional[int] = ..., tasks: _Optional[_Iterable[str]] = ..., experts: _Optional[int] = ..., weights: _Optional[bytes] = ...) -> None: ...

class ExpertUse(_message.Message):
    __slots__ = ("gates", "union_over_n")
    GATES_FIELD_NUMBER: _ClassVar[int]
    UNION_OVER_N_FIELD_NUMBER: _ClassVar[int]
    gates: _containers.RepeatedCompositeFieldContainer[GateUse]
    union_over_n: float
    def __init__(self, gates: _Optional[_Iterable[_Union[GateUse, _Mapping]]] = ..., union_over_n: _Optional[float] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("model", "version", "predictions", "scores", "order", "score_version", "unknown_user", "unknown_items", "experts", "request_id", "arm", "missing_context", "unseen_context", "clipped", "sources", "score_name", "exploration", "propensities", "stage", "refined")
    class PredictionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Predictions
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Predictions, _Mapping]] = ...) -> None: ...
    class ClippedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class SourcesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    SCORE_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_USER_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MISSING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    SCORE_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPLORATION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REFINED_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    predictions: _containers.MessageMap[str, Predictions]
    scores: bytes
    order: bytes
    score_version: str
    unknown_user: bool
    unknown_items: bytes
    experts: ExpertUse
    request_id: str
    arm: str
    missing_context: _containers.RepeatedScalarFieldContainer[str]
    unseen_context: _containers.RepeatedScalarFieldContainer[str]
    clipped: _containers.ScalarMap[str, int]
    sources: _containers.ScalarMap[str, str]
    score_name: str
    exploration: str
    propensities: bytes
    stage: str
    refined: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., predictions: _Optional[_Mapping[str, Predictions]] = ..., scores: _Optional[bytes] = ..., order: _Optional[bytes] = ..., score_version: _Optional[str] = ..., unknown_user: _Optional[bool] = ..., unknown_items: _Optional[bytes] = ..., experts: _Optional[_Union[ExpertUse, _Mapping]] = ..., request_id: _Optional[str] = ..., arm: _Optional[str] = ..., missing_context: _Optional[_Iterable[str]] = ..., unseen_context: _Optional[_Iterable[str]] = ..., clipped: _Optional[_Mapping[str, int]] = ..., sources: _Optional[_Mapping[str, str]] = ..., score_name: _Optional[str] = ..., exploration: _Optional[str] = ..., propensities: _Optional[bytes] = ..., stage: _Optional[str] = ..., refined: _Optional[int] = ...) -> None: ...

class BatchRankResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[RankResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[RankResponse, _Mapping]]] = ...) -> None: ...
