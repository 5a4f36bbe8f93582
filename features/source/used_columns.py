"""Which columns a recipe refers to; the rest is never read."""

from contract.columns import TIME
from features.feature_config import FeaturesConfig
from features.source.expressions import column_names
from features.source.row_types import KIND, OBSERVED, ORDER


def used_columns(config: FeaturesConfig) -> set[str]:
    """Every column of the joined log that a feature, a key or an expression refers to."""
    texts = [text for task in config.tasks for text in (task.label, task.where, task.weight)]
    texts += [history.where for history in config.histories]
    if config.split.by == "expression":
        texts += [config.split.valid, config.split.test]
    used = {name for text in texts if text for name in column_names(text)}
    used |= {feature.name for feature in config.features}
    used |= {name for aggregate in config.aggregates for name in (*aggregate.by, *aggregate.of)}
    used |= {name for h in config.histories for name in (h.of, h.by, *h.columns.values())}
    used |= {name for cross in config.crosses for name in cross.of}
    used |= {name for task in config.tasks for name in task.by}
    return used | {name for name in (config.events.user, config.events.item, OBSERVED, TIME, KIND, ORDER) if name}


def raw_columns(config: FeaturesConfig) -> set[str]:
    """Every column of any source that the recipe mentions, derived columns' own sources included."""
    entities = [table for table in (config.users, config.items, config.past) if table is not None]
    tables = [config.events, *config.labels, *entities]
    texts = [text for table in tables for text in (*table.columns.values(), table.where) if text]
    names = used_columns(config) | {name for text in texts for name in column_names(text)}
    names |= {name for table in tables for name in table.times} | _label_columns(config, names)
    names |= {entity.key for entity in (config.users, config.items) if entity is not None}
    names |= {entity.known_at for entity in (config.users, config.items) if entity is not None and entity.known_at}
    past = config.past.order if config.past else None
    return names | {name for name in (config.events.time, past) if name}


def _label_columns(config: FeaturesConfig, names: set[str]) -> set[str]:
    """What is read of label tables: keys, times, and the columns that are mentioned with the table's name before."""
    mentioned = {name.removeprefix(f"{table.name}_") for table in config.labels for name in names}
    return mentioned | {name for table in config.labels for name in (*table.by, table.time) if name}
