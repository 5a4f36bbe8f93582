"""What a features build depends on: its settings, and the facts of its source files."""

import time

from contract.digests import digest_of
from features.feature_config import FeaturesConfig
from features.source.data_files import find_files
from features.source.filesystems import file_facts
from features.source.tables import source_files
from features.table_config import TableConfig


def data_settings(data: FeaturesConfig) -> str:
    """A digest of the `data:` block."""
    return digest_of("data settings", data.model_dump(mode="json"))


def source_facts(data: FeaturesConfig) -> dict[str, object]:
    """By table what tells whether its files changed."""
    tables: dict[str, TableConfig | None] = {f"labels.{table.name}": table for table in data.labels}
    tables |= {"events": data.events, "users": data.users, "items": data.items, "past": data.past}
    # Nothing tells whether the rows of a query are those of the last build, so that it is always run.
    now = [("query", str(time.time_ns()))]
    served = [] if data.events.served is None else find_files(data.events.served, "data.events.served")
    facts: dict[str, object] = {"served": file_facts(served)} if served else {}
    return facts | {
        name: now if table.sql else file_facts(source_files(table, f"data.{name}"))
        for name, table in tables.items()
        if table
    }
