"""Look at a recipe before anything is built: tables, types, expressions, encoded rows, and what features cost."""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from contract.columns import TIME
from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.incremental.failed_place import explain, joined_log, unverified
from features.point_in_time.labels import with_tasks
from features.served.served_events import with_served_rows
from features.source.column_types import check_columns
from features.source.entities import Sources, read_sources
from features.source.expressions import compile_condition
from features.source.ownership import find_ownership
from features.source.query_engine import Backend, connect, disconnect, scalar, to_arrow
from features.source.row_types import OBSERVED
from pipeline.project.encode_sample import EncodedSample, EncodedValue, encode_sample
from pipeline.project.feature_costs import FeatureCost, default_width, feature_costs, size
from pipeline.project.sample_log import save_sample

_CHECKED_ROWS = 10_000
_ENCODED_ROWS = 1_000
_WIDEST = 24


@dataclass(frozen=True)
class CheckedRecipe:
    """What was found: the tables, some rows as the model would see them, and the features with their cost.

    `note` says why no rows could be encoded, where a sample is too small for it.
    """

    tables: tuple[str, ...]
    rows: tuple[EncodedValue, ...]
    features: tuple[FeatureCost, ...]
    note: str = ""

    def lines(self) -> list[str]:
        """For a person."""
        head = "sample: some rows, each value as it lies -> as the model takes it (numbers fitted on the sample)"
        sample = [f"  {one.name:<32} {', '.join(_pairs(one))}" for one in self.rows] or [f"  {self.note}"]
        bytes_each = [(one.embedding_bytes, one.online_bytes) for one in self.features]
        embeddings, online = (
            (size(sum(part)) for part in zip(*bytes_each, strict=True)) if bytes_each else ("0 B", "0 B")
        )
        total = f"  together: {len(self.features)} features, embeddings {embeddings}, online tables {online}"
        tables, features = [f"  {line}" for line in self.tables], [f"  {one.line()}" for one in self.features]
        return ["tables:", *tables, head, *sample, "features:", *features, *([total] if features else [])]


def _pairs(value: EncodedValue) -> Iterator[str]:
    if not value.encoded:
        yield from map(_short, value.raw)
    for raw, encoded in zip(value.raw, value.encoded, strict=False):
        yield f"{_short(raw)} -> {_short(encoded)}"


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def check_recipe(config: FeaturesConfig, width: int | None = None) -> CheckedRecipe:
    """Open the tables, compile every expression and run it on the first rows, and encode a sample.

    `width` is that of the model's embeddings. Pages are not verified.

    Raises:
        DataError: a table, a type or a value that cannot be used; the place in the recipe is named.
        ConfigError: a column or an expression that does not exist.
    """
    quick = unverified(config)
    with tempfile.TemporaryDirectory() as folder:
        quick = with_served_rows(quick, Path(folder) / "served")
        connection = connect("1GB", Path(folder))
        try:
            sources = read_sources(connection, quick)
            _check(connection, quick, sources)
            rows, distinct, keys = _counts(connection, quick, sources)
            small = save_sample(connection, sources, quick, _ENCODED_ROWS, Path(folder))
        except duckdb.Error as error:
            raise DataError(explain(connection, quick, error)) from error
        finally:
            disconnect(connection)
        sample, note = _sample(small, Path(folder), rows, sources.unsigned)
    tables = [f"events: {rows:,} rows, {len(sources.events.columns)} columns"]
    tables += [f"{side}s: {keys[side]:,} rows" for side in sources.entities]
    if sample is None:
        return CheckedRecipe(tuple(tables), (), (), note)
    joined = {
        c: f"{side}s" for side, t in sources.entities.items() for c in t.columns if c not in sources.events.columns
    }
    costs = feature_costs(sample.planned, sample.schema, width or default_width(), distinct, keys, joined)
    return CheckedRecipe(tuple(tables), sample.values, tuple(costs))


def _sample(
    small: FeaturesConfig, folder: Path, rows: int, unsigned: Collection[str]
) -> tuple[EncodedSample | None, str]:
    """Some encoded rows, or why there are none; a failure that the whole log of so many rows would have is raised."""
    try:
        return encode_sample(small, folder, unsigned), ""
    except DataError as error:
        if rows <= _ENCODED_ROWS:
            raise
        return None, f"{_ENCODED_ROWS:,} rows are too few to fit the encoders: {error}"


def _check(connection: Backend, config: FeaturesConfig, sources: Sources) -> None:
    """Compile all expressions and run those of labels on the first rows."""
    columns = {side: tuple(table.columns) for side, table in sources.entities.items()}
    added = (OBSERVED,) if config.negatives else ()
    events = (*sources.events.columns, *added)
    ownership = find_ownership(config, events, columns.get("user", ()), columns.get("item", ()))
    check_columns(config, ownership, sources.events, sources.entities)
    joined = joined_log(sources, config, _CHECKED_ROWS)
    for place, history in enumerate(config.histories):
        if history.where:
            compile_condition(history.where, joined, f"data.histories[{place}].where")
    last = int(scalar(connection, joined[TIME].max()) or 0)
    labelled = with_tasks(joined, config, last)
    made = [c for c in labelled.columns if c not in joined.columns]
    to_arrow(connection, labelled.aggregate(**{c: labelled[c].sum() for c in made}))


def _counts(
    connection: Backend, config: FeaturesConfig, sources: Sources
) -> tuple[int, Mapping[str, int], Mapping[str, int]]:
    """How many rows the log has, about how many values the columns of ids, and how many users and items there are."""
    ids = {feature.name for feature in config.features if feature.kind == "id"}
    ids |= {key for key in (config.events.user, config.events.item) if key}
    distinct: dict[str, int] = {}
    rows: dict[str, int] = {}
    for name, table in (("events", sources.events), *sources.entities.items()):
        wanted = {f"c{n}": c for n, c in enumerate(table.columns) if c in ids and c not in distinct}
        counted = {column: table[c].approx_nunique() for column, c in wanted.items()}
        (counts,) = to_arrow(connection, table.aggregate(rows=table.count(), **counted)).to_pylist()
        distinct |= {c: int(counts[column]) for column, c in wanted.items()}
        rows[name] = int(counts["rows"])
    log = rows.pop("events")
    for side, key in (("user", config.events.user), ("item", config.events.item)):
        if key is not None and side not in rows:
            rows[side] = distinct.get(key, 0)
    return log, distinct, rows
