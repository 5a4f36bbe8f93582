"""The features of a recipe in their final order, with the raw columns that feed each."""

from dataclasses import dataclass, field

from contract.columns import ITEM_HASH, TIME, USER_HASH, task_columns
from contract.errors import ConfigError
from contract.schema import Side
from features.feature_config import CrossConfig, FeatureConfig, FeaturesConfig, HistoryConfig
from features.point_in_time.aggregates import AggregateColumns, plan_aggregate
from features.source.ownership import Ownership


@dataclass(frozen=True)
class FeaturePlan:
    """One feature: where it hangs, and one of the four ways it is made."""

    name: str
    side: Side
    keys: tuple[str, ...]
    column: FeatureConfig | None = None
    aggregate: AggregateColumns | None = None
    history: HistoryConfig | None = None
    cross: CrossConfig | None = None
    element: int | None = None
    """Which number of the column's vector the feature is."""
    elapsed: bool = False
    """Whether the list is how long ago the history's events happened."""
    raw: tuple[str, ...] = field(default=())


def plan_features(config: FeaturesConfig, ownership: Ownership) -> list[FeaturePlan]:
    """Columns, then crosses, aggregates and histories, as they stand in the recipe.

    Raises:
        ConfigError: two features of one name, or one that is named like another column of training rows.
    """
    planned: list[FeaturePlan] = []
    for feature in config.features:
        planned += _plan_column(feature, ownership.side(feature.name, "data.features"))
    for place, cross in enumerate(config.crosses):
        for column in cross.of:
            ownership.side(column, f"data.crosses[{place}].of")
        planned.append(FeaturePlan(cross.name, "pair", cross.of, cross=cross, raw=cross.of))
    for place, aggregate in enumerate(config.aggregates):
        side = ownership.group_side(aggregate.by, f"data.aggregates[{place}].by")
        keys = aggregate.by if side == "pair" else ()
        planned += [FeaturePlan(m.name, side, keys, aggregate=m, raw=m.raw) for m in plan_aggregate(aggregate)]
    for place, history in enumerate(config.histories):
        side = ownership.group_side((history.by,), f"data.histories[{place}].by")
        keys = (history.by,) if side == "pair" else ()
        planned += [FeaturePlan(m.name, side, keys, history=m, raw=(m.name,)) for m in plan_history(history, config)]
        if history.elapsed is not None:
            planned.append(_plan_elapsed(history, history.elapsed, config, side, keys))
    _refuse_clashes([plan.name for plan in planned], config)
    return planned


def _refuse_clashes(names: list[str], config: FeaturesConfig) -> None:
    """What an aggregate makes is named after its keys, columns and windows, so another block may make the same name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = (
            f"names used twice: {', '.join(twice)}; aggregates name their features by `by`, `of` and window: put what "
            "has the same into one block, say `count: false` or `since: false` in one of two, or rename a column"
        )
        raise ConfigError(message)
    reserved = sorted({USER_HASH, ITEM_HASH, TIME, *task_columns(task.name for task in config.tasks)} & set(names))
    if reserved:
        message = (
            f"a feature cannot have the name {reserved[0]!r}, which another column of training rows has; rename it, "
            f"such as with `columns: {{my{reserved[0]}: {reserved[0]}}}`"
        )
        raise ConfigError(message)


def _plan_column(feature: FeatureConfig, side: Side) -> list[FeaturePlan]:
    if feature.kind != "vector":
        return [FeaturePlan(feature.name, side, (), column=feature, raw=(feature.name,))]
    number = feature.model_copy(update={"kind": "dense", "encoding": "standardise"})
    return [
        FeaturePlan(f"{feature.name}[{element}]", side, (), column=number, element=element, raw=(feature.name,))
        for element in range(feature.width or 0)
    ]


def _plan_elapsed(
    history: HistoryConfig, name: str, config: FeaturesConfig, side: Side, keys: tuple[str, ...]
) -> FeaturePlan:
    """The list of how long ago a history's events happened: their times, and the row's."""
    times: dict[str, object] = {
        "name": name,
        "of": config.events.time or TIME,
        "columns": {},
        "shares": None,
        "elapsed": None,
    }
    return FeaturePlan(name, side, keys, history=history.model_copy(update=times), elapsed=True, raw=(name, TIME))


def plan_history(history: HistoryConfig, config: FeaturesConfig) -> list[HistoryConfig]:
    """A history and its side columns as histories of their own; a side column that is an id feature shares its ids."""
    ids = {f.name for f in config.features if f.kind == "id"}
    sides = [
        history.model_copy(update={"name": name, "of": of, "columns": {}, "shares": of if of in ids else None})
        for name, of in history.columns.items()
    ]
    return [history, *sides]
