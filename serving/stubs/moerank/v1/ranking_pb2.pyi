from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Null(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NULL_UNSPECIFIED: _ClassVar[Null]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_KIND_UNSPECIFIED: _ClassVar[TaskKind]
    TASK_KIND_BINARY: _ClassVar[TaskKind]
    TASK_KIND_REGRESSION: _ClassVar[TaskKind]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_USER: _ClassVar[Side]
    SIDE_ITEM: _ClassVar[Side]
    SIDE_CONTEXT: _ClassVar[Side]
    SIDE_PAIR: _ClassVar[Side]
NULL_UNSPECIFIED: Null
TASK_KIND_UNSPECIFIED: TaskKind
TASK_KIND_BINARY: TaskKind
TASK_KIND_REGRESSION: TaskKind
SIDE_UNSPECIFIED: Side
SIDE_USER: Side
SIDE_ITEM: Side
SIDE_CONTEXT: Side
SIDE_PAIR: Side

class Id(_message.Message):
    __slots__ = ("integer", "text")
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    integer: int
    text: str
    def __init__(self, integer: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class IntegerList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class TextList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class NumberList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class FlagList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, values: _Optional[_Iterable[bool]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("integers", "texts")
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    integers: IntegerList
    texts: TextList
    def __init__(self, integers: _Optional[_Union[IntegerList, _Mapping]] = ..., texts: _Optional[_Union[TextList, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("null", "flag", "integer", "number", "text", "texts", "integers", "numbers", "values")
    NULL_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    null: Null
    flag: bool
    integer: int
    number: float
    text: str
    texts: TextList
    integers: IntegerList
    numbers: NumberList
    values: ValueList
    def __init__(self, null: _Optional[_Union[Null, str]] = ..., flag: _Optional[bool] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., texts: _Optional[_Union[TextList, _Mapping]] = ..., integers: _Optional[_Union[IntegerList, _Mapping]] = ..., numbers: _Optional[_Union[NumberList, _Mapping]] = ..., values: _Optional[_Union[ValueList, _Mapping]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("integers", "numbers", "texts", "flags", "values")
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    integers: IntegerList
    numbers: NumberList
    texts: TextList
    flags: FlagList
    values: ValueList
    def __init__(self, integers: _Optional[_Union[IntegerList, _Mapping]] = ..., numbers: _Optional[_Union[NumberList, _Mapping]] = ..., texts: _Optional[_Union[TextList, _Mapping]] = ..., flags: _Optional[_Union[FlagList, _Mapping]] = ..., values: _Optional[_Union[ValueList, _Mapping]] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("model", "version", "user", "items", "context", "user_features", "item_features", "top_k", "debug", "score", "greedy")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    class UserFeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    class ItemFeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Column
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Column, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    USER_FEATURES_FIELD_NUMBER: _ClassVar[int]
    ITEM_FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    user: Id
    items: Ids
    context: _containers.MessageMap[str, Value]
    user_features: _containers.MessageMap[str, Value]
    item_features: _containers.MessageMap[str, Column]
    top_k: int
    debug: bool
    score: str
    greedy: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., user: _Optional[_Union[Id, _Mapping]] = ..., items: _Optional[_Union[Ids, _Mapping]] = ..., context: _Optional[_Mapping[str, Value]] = ..., user_features: _Optional[_Mapping[str, Value]] = ..., item_features: _Optional[_Mapping[str, Column]] = ..., top_k: _Optional[int] = ..., debug: _Optional[bool] = ..., score: _Optional[str] = ..., greedy: _Optional[bool] = ...) -> None: ...

class Predictions(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class GateUse(_message.Message):
    __slots__ = ("level", "tasks", "experts", "weights")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    level: int
    tasks: _containers.RepeatedScalarFieldContainer[str]
    experts: int
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, level: _Optional[int] = ..., tasks: _Optional[_Iterable[str]] = ..., experts: _Optional[int] = ..., weights: _Optional[_Iterable[float]] = ...) -> None: ...

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
    scores: _containers.RepeatedScalarFieldContainer[float]
    order: _containers.RepeatedScalarFieldContainer[int]
    score_version: str
    unknown_user: bool
    unknown_items: _containers.RepeatedScalarFieldContainer[int]
    experts: ExpertUse
    request_id: str
    arm: str
    missing_context: _containers.RepeatedScalarFieldContainer[str]
    unseen_context: _containers.RepeatedScalarFieldContainer[str]
    clipped: _containers.ScalarMap[str, int]
    sources: _containers.ScalarMap[str, str]
    score_name: str
    exploration: str
    propensities: _containers.RepeatedScalarFieldContainer[float]
    stage: str
    refined: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., predictions: _Optional[_Mapping[str, Predictions]] = ..., scores: _Optional[_Iterable[float]] = ..., order: _Optional[_Iterable[int]] = ..., score_version: _Optional[str] = ..., unknown_user: _Optional[bool] = ..., unknown_items: _Optional[_Iterable[int]] = ..., experts: _Optional[_Union[ExpertUse, _Mapping]] = ..., request_id: _Optional[str] = ..., arm: _Optional[str] = ..., missing_context: _Optional[_Iterable[str]] = ..., unseen_context: _Optional[_Iterable[str]] = ..., clipped: _Optional[_Mapping[str, int]] = ..., sources: _Optional[_Mapping[str, str]] = ..., score_name: _Optional[str] = ..., exploration: _Optional[str] = ..., propensities: _Optional[_Iterable[float]] = ..., stage: _Optional[str] = ..., refined: _Optional[int] = ...) -> None: ...

class BatchRankRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RankRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RankRequest, _Mapping]]] = ...) -> None: ...

class BatchRankResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[RankResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[RankResponse, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("name", "kind", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: TaskKind
    unit: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., unit: _Optional[str] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "kind", "side", "type", "lowest", "highest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LOWEST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    side: Side
    type: str
    lowest: float
    highest: float
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., type: _Optional[str] = ..., lowest: _Optional[float] = ..., highest: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "tasks", "features", "schema_fingerprint", "score", "score_version", "git_revision", "metrics_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORE_VERSION_FIELD_NUMBER: _ClassVar[int]
    GIT_REVISION_FIELD_NUMBER: _ClassVar[int]
    METRICS_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    schema_fingerprint: str
    score: str
    score_version: str
    git_revision: str
    metrics_json: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., schema_fingerprint: _Optional[str] = ..., score: _Optional[str] = ..., score_version: _Optional[str] = ..., git_revision: _Optional[str] = ..., metrics_json: _Optional[str] = ...) -> None: ...

class PushedFeature(_message.Message):
    __slots__ = ("name", "value", "at_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    at_ms: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ..., at_ms: _Optional[int] = ...) -> None: ...

class PushedFeatures(_message.Message):
    __slots__ = ("features",)
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedCompositeFieldContainer[PushedFeature]
    def __init__(self, features: _Optional[_Iterable[_Union[PushedFeature, _Mapping]]] = ...) -> None: ...
