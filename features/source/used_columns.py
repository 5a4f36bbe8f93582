"""Which columns a recipe refers to; the rest is never read."""

from contract.columns import SERVED_ROW, TIME
from features.feature_config import FeaturesConfig
from features.source.expressions import column_names
from features.source.row_types import KIND, OBSERVED, ORDER
from features.table_config import EntityConfig, LabelTableConfig, PastConfig, TableConfig


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
    used |= {SERVED_ROW} if config.events.served else set()
    return used | {
        name
        for name in (config.events.user, config.events.item, config.events.key, OBSERVED, TIME, KIND, ORDER)
        if name
    }


def raw_columns(config: FeaturesConfig, table: TableConfig) -> set[str]:
    """Every column that is read of a table: what the recipe uses by name, and what the table's own block mentions."""
    names = used_columns(config) | {
        name for text in (*table.columns.values(), table.where) if text for name in column_names(text)
    }
    names |= set(table.times) | _label_columns(config, names)
    names |= {name for label in config.labels for name in label.by}
    named: tuple[str | None, ...] = ()
    if isinstance(table, EntityConfig):
        named = (table.key, table.known_at, table.newest)
    elif isinstance(table, LabelTableConfig):
        named = (*table.by, table.time)
    elif isinstance(table, PastConfig):
        named = (table.order,)
    return names | {name for name in (config.events.time, *named) if name}


def _label_columns(config: FeaturesConfig, names: set[str]) -> set[str]:
    """What is read of label tables: the columns that are mentioned with the table's name before."""
    return {name.removeprefix(f"{table.name}_") for table in config.labels for name in names}
