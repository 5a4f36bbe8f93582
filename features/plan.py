"""The features of a recipe in their final order, with the raw columns that feed each."""

from dataclasses import dataclass, field

from features.aggregates import AggregateColumns, plan_aggregate
from features.config import FeatureConfig, FeaturesConfig, HistoryConfig
from features.ownership import Ownership
from features.schema import Side


@dataclass(frozen=True)
class Planned:
    """One feature: where it hangs, and one of the three ways it is made."""

    name: str
    side: Side
    keys: tuple[str, ...]
    column: FeatureConfig | None = None
    aggregate: AggregateColumns | None = None
    history: HistoryConfig | None = None
    raw: tuple[str, ...] = field(default=())


def plan_features(config: FeaturesConfig, ownership: Ownership) -> list[Planned]:
    """Columns, then aggregates, then histories, as they stand in the recipe."""
    planned = [
        Planned(f.name, ownership.side(f.name, "data.features"), (), column=f, raw=(f.name,)) for f in config.features
    ]
    for place, aggregate in enumerate(config.aggregates):
        side = ownership.group_side(aggregate.by, f"data.aggregates[{place}].by")
        keys = aggregate.by if side == "pair" else ()
        for made in plan_aggregate(aggregate):
            raw = (made.total, made.seen) if made.total else (made.seen,)
            planned.append(Planned(made.name, side, keys, aggregate=made, raw=raw))
    for place, history in enumerate(config.histories):
        side = ownership.group_side((history.by,), f"data.histories[{place}].by")
        keys = (history.by,) if side == "pair" else ()
        planned.append(Planned(history.name, side, keys, history=history, raw=(history.name,)))
    return planned
