"""The schema of a build: what was fitted, and the keys by which online tables are asked."""

import pyarrow as pa

from contract.schema import KeySpec, Schema
from features.encode.fit_encoders import Fitted, moment_of
from features.feature_config import FeaturesConfig
from features.point_in_time.timeline import Timeline


def fitted_schema(config: FeaturesConfig, fitted: Fitted, timeline: Timeline, stored: pa.Schema) -> Schema:
    """The schema of what was fitted, over raw rows that are `stored` so."""
    keys = dict.fromkeys(timeline.keys)
    keys |= dict.fromkeys(key for key in (config.events.user, config.events.item) if key)
    specs = tuple(
        KeySpec(
            name=key,
            side=timeline.ownership.sides[key],
            dtype="string" if pa.types.is_string(stored.field(key).type) else "integer",
            moment=moment_of(stored.field(key).type),
        )
        for key in keys
    )
    return Schema(
        features=fitted.specs,
        tasks=fitted.tasks,
        keys=specs,
        user_key=config.events.user or "",
        item_key=config.events.item or "",
        vocabulary_sha256=fitted.vocabularies.sha256(),
    )
