"""Look at a recipe before anything is built: tables, columns, types, expressions, and what each feature costs."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir

from contract.columns import TIME
from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.point_in_time.feature_plan import FeaturePlan, plan_features
from features.point_in_time.labels import with_tasks
from features.source.column_types import check_columns
from features.source.entities import read_sources, with_attributes
from features.source.expressions import compile_condition
from features.source.ownership import find_ownership
from features.source.query_engine import Backend, connect, scalar, to_arrow
from features.source.row_types import EVENT, KIND, ORDER
from features.source.times import event_ms

SAMPLED_ROWS = 5
_CHECKED_ROWS = 10_000


@dataclass(frozen=True)
class CheckedRecipe:
    """What was found: the tables, some rows as features are made of them, and the features with their cost."""

    tables: tuple[str, ...]
    rows: list[dict[str, object]]
    features: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a person."""
        names = self.rows[0] if self.rows else ()
        sample = [f"  {name:<32} {', '.join(_short(row[name]) for row in self.rows)}" for name in names]
        head = f"sample: the first {len(self.rows)} rows, labels and weights included"
        tables, features = ([f"  {line}" for line in lines] for lines in (self.tables, self.features))
        return ["tables:", *tables, head, *sample, "features:", *features]


def _short(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."  # noqa: PLR2004 - five of them make a line


def check_recipe(config: FeaturesConfig) -> CheckedRecipe:
    """Open the tables without reading their pages, compile every expression, and run them on the first rows.

    Raises:
        DataError: a table, a type or a value that cannot be used; the place in the recipe is named.
        ConfigError: a column or an expression that does not exist.
    """
    quick = _without_pages(config)
    with tempfile.TemporaryDirectory() as spill:
        connection = connect("1GB", Path(spill))
        try:
            return _check(connection, quick)
        except duckdb.Error as error:
            message = f"the tables cannot be used: {str(error).splitlines()[0]}"
            raise DataError(message) from error
        finally:
            connection.disconnect()


def _without_pages(config: FeaturesConfig) -> FeaturesConfig:
    """A recipe whose pages are not verified, which takes as long as reading them."""
    tables = {name: getattr(config, name) for name in ("events", "users", "items", "past")}
    changed = {name: table.model_copy(update={"verify": False}) for name, table in tables.items() if table is not None}
    labels = tuple(table.model_copy(update={"verify": False}) for table in config.labels)
    return config.model_copy(update={**changed, "labels": labels, "engine": "duckdb"})


def _check(connection: Backend, config: FeaturesConfig) -> CheckedRecipe:
    sources = read_sources(connection, config)
    columns = {side: tuple(table.columns) for side, table in sources.entities.items()}
    ownership = find_ownership(config, tuple(sources.events.columns), columns.get("user", ()), columns.get("item", ()))
    check_columns(config, ownership, sources.events, sources.entities)
    planned = plan_features(config, ownership)
    tables = [
        f"events: {int(scalar(connection, sources.events.count())):,} rows, {len(sources.events.columns)} columns"
    ]
    tables += [f"{side}s: {int(scalar(connection, t.count())):,} rows" for side, t in sources.entities.items()]
    rows = _rows(connection, config, sources.events.limit(_CHECKED_ROWS), sources.entities)
    return CheckedRecipe(tuple(tables), rows, tuple(_costs(connection, planned, sources.events)))


def _rows(
    connection: Backend, config: FeaturesConfig, events: ir.Table, entities: dict[str, ir.Table]
) -> list[dict[str, object]]:
    """Run every expression on some rows; a failure names the task whose expression it is."""
    kind, order = ibis.literal(EVENT, "int8"), ibis.literal(0, "int64")
    log = events.mutate(**{TIME: event_ms(events, config), KIND: kind, ORDER: order})
    joined = with_attributes(log, entities, config)
    last = int(scalar(connection, joined[TIME].max()) or 0)
    for place, task in enumerate(config.tasks):
        labelled = with_tasks(joined, config.model_copy(update={"tasks": (task,)}), last)
        _run(connection, labelled, f"data.tasks[{place}] ({task.name})")
    for place, history in enumerate(config.histories):
        if history.where:
            compile_condition(history.where, joined, f"data.histories[{place}].where")
    labelled = with_tasks(joined, config, last)
    names = [feature.name for feature in config.features if feature.name in labelled.columns]
    shown = labelled.select(*names, *(c for c in labelled.columns if c.startswith(("label__", "weight__"))))
    return to_arrow(connection, shown.limit(SAMPLED_ROWS)).to_pylist()


def _run(connection: Backend, table: ir.Table, where: str) -> None:
    try:
        to_arrow(connection, table)
    except duckdb.Error as error:
        message = f"{where} cannot be computed: {str(error).splitlines()[0]}"
        raise DataError(message) from error


def _costs(connection: Backend, planned: list[FeaturePlan], events: ir.Table) -> Iterator[str]:
    """What each feature adds to the model's inputs and to online tables."""
    for plan in planned:
        column = plan.column
        if column is not None and column.kind in {"id", "id_list"}:
            number = _distinct(connection, events, plan.name)
            size = f"{column.buckets:,} rows by hash" if column.encoding == "hash" else f"{number} embedding rows"
            yield f"{plan.name:<32} {column.kind:<8} of the {plan.side}: {size}"
        elif column is not None:
            yield f"{plan.name:<32} {column.kind:<8} of the {plan.side}: up to {column.bins} inputs"
        elif plan.aggregate is not None:
            yield f"{plan.name:<32} {plan.aggregate.stat:<8} by {', '.join(plan.aggregate.keys)}: a window sum"
        elif plan.history is not None:
            yield f"{plan.name:<32} history  of {plan.history.of}: {plan.history.last} values a row"
        elif plan.cross is not None:
            yield f"{plan.name:<32} cross    of {', '.join(plan.keys)}: {plan.cross.buckets:,} rows by hash"


def _distinct(connection: Backend, events: ir.Table, name: str) -> str:
    if name not in events.columns or events[name].type().is_array():
        return "one a value:"
    return f"about {int(scalar(connection, events[name].approx_nunique())):,}"
