"""Which types of columns features, keys and lists can be made of; others are refused before anything runs."""

from collections.abc import Iterator, Mapping
from typing import Any

import ibis
import ibis.expr.types as ir

from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.source.ownership import Ownership


def check_columns(
    config: FeaturesConfig, ownership: Ownership, events: ir.Table, entities: Mapping[str, ir.Table]
) -> None:
    """Refuse columns whose type does not fit what the recipe makes of them.

    Raises:
        ConfigError: there is no such column.
        DataError: naming the place in the recipe, the column, its type and what is allowed.
    """
    for place, feature in enumerate(config.features):
        where = f"data.features[{place}]"
        dtype = _type(feature.name, ownership, events, entities, where)
        value = dtype.value_type if dtype.is_array() else dtype
        plain = value.is_numeric() or value.is_boolean() or value.is_timestamp() or value.is_date() or value.is_null()
        if not (plain or (value.is_string() and not value.is_json())):
            message = (
                f"{where}: column {feature.name!r} is {dtype}; allowed are numbers, strings, times and lists of them "
                f"(a field of a struct is a column by `columns: {{NAME: {feature.name}.FIELD}}`)"
            )
            raise DataError(message)
        if feature.kind == "id":
            _require_id(feature.name, dtype, where)
    for where, column in _id_columns(config):
        _require_id(column, _type(column, ownership, events, entities, where), where)


def _id_columns(config: FeaturesConfig) -> Iterator[tuple[str, str]]:
    """Every place where a column's values are names of something."""
    for place, cross in enumerate(config.crosses):
        yield from ((f"data.crosses[{place}].of", column) for column in cross.of)
    for place, aggregate in enumerate(config.aggregates):
        yield from ((f"data.aggregates[{place}].by", column) for column in aggregate.by)
    for place, history in enumerate(config.histories):
        where = f"data.histories[{place}] ({history.name})"
        yield from ((where, column) for column in (history.by, history.of, *history.columns.values()))


def _type(column: str, ownership: Ownership, events: ir.Table, entities: Mapping[str, ir.Table], where: str) -> Any:
    side = ownership.side(column, where)
    if column in events.columns:
        return events[column].type()
    # What negatives add stands in no source; it is a number.
    return entities[side][column].type() if side in entities else ibis.dtype("int8")


def _require_id(column: str, dtype: Any, where: str) -> None:
    if dtype.is_array():
        message = (
            f"{where}: column {column!r} is {dtype}, but one value per event is needed; take one of them, "
            f"such as `columns: {{one: first({column})}}`, or use the list as a feature of kind id_list"
        )
        raise DataError(message)
    if not (dtype.is_numeric() or dtype.is_boolean() or dtype.is_date() or dtype.is_string() or dtype.is_null()):
        hint = "hour(...), day(...) or weekday(...) of it" if dtype.is_timestamp() else "one of its fields"
        message = f"{where}: column {column!r} is {dtype}; allowed are whole numbers and texts: take {hint}"
        raise DataError(message)
