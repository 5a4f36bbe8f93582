"""Encode raw days with what a model's own build fitted: its recipe, vocabularies, bins and means.

So a published version can be judged on days that came after it. Point-in-time features are computed by the same
functions as in training; nothing is fitted. On the same days the rows equal those of the training build bit for bit.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from contract.columns import TIME
from contract.errors import ConfigError, DataError, SchemaMismatchError
from contract.graph_names import PRIORS_FILE, RECIPE_FILE
from contract.schema import IdSpec, Schema
from features.encode.encoder import Encoder
from features.encode.fit_encoders import Fitted, Previous
from features.encode.trained_rows import TrainedRows
from features.encode.write_splits import assemble
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import Progress
from features.incremental.log_rows import LogRows, log_rows
from features.incremental.partition_store import PartitionStore
from features.incremental.raw_dataset import RawDataset
from features.incremental.raw_rows import PartitionRows, history_names
from features.incremental.splits import LEFT_OUT, SPLIT_NAMES, TEST
from features.served.served_events import with_served_rows
from features.served.served_features import ServedFeatures
from features.source.zones import day_begin_ms, day_number

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class RawDays:
    """Where raw rows lie, in place of the recipe's own paths, and which days are wanted, first and last included.

    The log must hold what features look back to, so usually more days than are wanted.
    """

    events: str | None = None
    users: str | None = None
    items: str | None = None
    first: date | None = None
    last: date | None = None
    key: str | None = None
    """The log's column that tells rows apart, where it is not the recipe's."""

    @classmethod
    def of(cls, data: FeaturesConfig, recipe: FeaturesConfig, first: date, last: date) -> Self:
        """Days of a project's tables as they lie today, where a version's recipe names other paths."""
        paths: dict[str, str] = {}
        for name in ("events", "users", "items"):
            now, then = getattr(data, name), getattr(recipe, name)
            if now is not None and then is not None and now.path and now.path != then.path:
                paths[name] = now.path
        return cls(**paths, first=first, last=last)

    def apply(self, recipe: FeaturesConfig) -> FeaturesConfig:
        """The recipe with these paths, and without what is for training alone.

        Raises:
            ConfigError: a table is named that the recipe does not have.
        """
        changes: dict[str, object] = {"grow": False}
        for name in ("events", "users", "items"):
            path, table = getattr(self, name), getattr(recipe, name)
            if path is not None and table is None:
                message = f"--{name} {path}: the recipe of this model has no data.{name}"
                raise ConfigError(message)
            if table is not None:
                changed = {} if path is None else {"path": path}
                if name == "events":
                    changed |= {"until": None, "late": "rebuild", **({"key": self.key} if self.key else {})}
                    changed |= {"served": None} if path else {}
                changes[name] = table.model_copy(update=changed)
        return recipe.model_copy(update=changes)

    def describe(self, path: str) -> str:
        """For a person: the log, and which days of it."""
        first = "" if self.first is None else f" from {self.first}"
        return f"{path}{first}{'' if self.last is None else f' to {self.last}'}"

    def bounds(self, zone: str) -> tuple[int, int]:
        """The first moment, and the first one after the last, in milliseconds since 1970."""
        first = -(2**62) if self.first is None else day_begin_ms((self.first - _EPOCH).days, zone)
        last = 2**62 if self.last is None else day_begin_ms((self.last - _EPOCH).days + 1, zone)
        return first, last


@dataclass(frozen=True)
class FittedRecipe:
    """A recipe with what its build fitted."""

    config: FeaturesConfig
    fitted: Previous
    trained: TrainedRows | None = None

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read it out of a bundle or an exported run.

        Raises:
            DataError: the bundle has no recipe, or one of another version of moerank.
            IntegrityError: its vocabulary is not that of its schema.
        """
        path = directory / RECIPE_FILE
        try:
            config = FeaturesConfig.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            message = (
                f"{directory} has no {RECIPE_FILE}, so it cannot encode raw rows: it was exported by an earlier "
                "version; export its run again, or give rows that its features build encoded, with --data"
            )
            raise DataError(message) from error
        except ValidationError as error:
            message = f"{path} is not a recipe of this version: {error.errors()[0]['msg']}; export the run again"
            raise DataError(message) from error
        fitted = Previous.load(directory)
        if fitted is None:
            message = f"{directory} has no {PRIORS_FILE}; export its run again"
            raise DataError(message)
        return cls(config, fitted, TrainedRows.load(directory))


@dataclass(frozen=True)
class EncodedPart:
    """Encoded rows in a file, and `raw` columns of the same rows, in the same order."""

    file: Path
    rows: PartitionRows
    wanted: NDArray[np.bool_]

    def raw(self, names: list[str]) -> pa.Table:
        """Raw columns, such as the ids of user and item."""
        return self.rows.read(names).filter(pa.array(self.wanted))


@dataclass(frozen=True)
class EncodedDays:
    """Encoded rows as a dataset; `first_ms` is when the log begins, `looks_back` whether features need its past.

    `keys` are the names of the raw columns of user and item, where the recipe has them, and `row_key` that of the
    column that tells rows apart; `zone` is where days begin.
    """

    name: str
    dataset: Path
    parts: tuple[EncodedPart, ...]
    first_ms: int
    looks_back: bool
    begins_ms: int
    keys: tuple[str, ...]
    zone: str
    row_key: str | None = None
    on_training: tuple[str, ...] = ()
    """What to say where rows are of times that the model's training rows cover."""

    def notes(self) -> list[str]:
        """What a reader of the figures should know about the log."""
        if not self.looks_back or self.first_ms < self.begins_ms:
            return [*self.on_training]
        message = (
            "the log given begins with the first day that is judged, so features that look back saw nothing before it; "
            "give the days before as well with --events, and name the first day to judge with --from"
        )
        return [message, *self.on_training]


@contextmanager
def encoded_days(
    recipe: FittedRecipe, days: RawDays, progress: Progress, kept: Path | None = None
) -> Iterator[EncodedDays]:
    """Encode the wanted days; the rows are there as long as the context.

    Args:
        recipe: What a bundle carries.
        days: The raw rows.
        progress: Called with a few words as each stage begins.
        kept: A directory in which raw rows of days stay for the next call on the same log; None: none stay.

    Raises:
        DataError: sources that cannot be used, or none of their rows are wanted.
        SchemaMismatchError: the rows' columns are not those that the model was trained on.
    """
    config = days.apply(recipe.config)
    if kept is not None:
        # What stays for the next call must tell the code and the rows that made it, whatever training did.
        config = config.model_copy(update={"incremental": True})
    with tempfile.TemporaryDirectory(prefix="moerank-days-") as scratch:
        raw, made = Path(scratch) / "raw", Path(scratch) / "made"
        raw.mkdir()
        made.mkdir()
        store = PartitionStore(raw / "days" if kept is None else kept)
        config = with_served_rows(config, (raw if kept is None else kept) / "served")
        served = None if config.events.served is None else ServedFeatures(Path(config.events.served))
        with log_rows(config, store, raw, progress) as log:
            raw_dataset = _choose(log, config, days)
            _check_plan(log, raw_dataset, recipe.fitted.schema)
        store.save_last(log.work.log)
        fitted = _fitted(recipe)
        encoder = Encoder(recipe.fitted.schema, recipe.fitted.vocabularies)
        progress("encoding")
        pieces = assemble(raw_dataset, log.planned, encoder, fitted, config, store.encoded, made, served)
        in_range = [splits == TEST for splits in raw_dataset.splits]
        parts = zip(pieces, raw_dataset.parts, in_range, strict=True)
        times = np.concatenate(
            [part.read([TIME])[TIME].to_numpy()[mask] for part, mask in zip(raw_dataset.parts, in_range, strict=True)]
        )
        yield EncodedDays(
            name=days.describe(config.events.path),
            dataset=made / SPLIT_NAMES[TEST],
            parts=tuple(EncodedPart(piece.pieces[TEST], rows, mask) for piece, rows, mask in parts),
            first_ms=log.work.span.first_ms,
            looks_back=bool(config.aggregates or config.histories),
            begins_ms=_day_begin(int(times.min()), config.events.time_zone),
            keys=tuple(key for key in (config.events.user, config.events.item) if key),
            zone=config.events.time_zone,
            row_key=config.events.key,
            on_training=() if recipe.trained is None else tuple(recipe.trained.note(times)),
        )


def _day_begin(ms: int, zone: str) -> int:
    return day_begin_ms(day_number(ms, zone), zone)


def _fitted(recipe: FittedRecipe) -> Fitted:
    schema = recipe.fitted.schema
    return Fitted(schema.features, recipe.fitted.vocabularies, schema.tasks, recipe.fitted.priors)


def _choose(log: LogRows, config: FeaturesConfig, days: RawDays) -> RawDataset:
    """The partitions with wanted rows, all others left out.

    Raises:
        DataError: no row is wanted.
    """
    begin, end = days.bounds(config.events.time_zone)
    chosen = []
    for file, day in zip(log.work.files, log.work.last_days, strict=True):
        rows = PartitionRows(file, history_names(config))
        times = rows.read([TIME])[TIME].to_numpy()
        in_range = (times >= begin) & (times < end)
        if in_range.any():
            chosen.append((rows, day, np.where(in_range, TEST, LEFT_OUT).astype(np.int8)))
    if not chosen:
        zone, span = config.events.time_zone, log.work.span
        known = " to ".join(str(np.datetime64(day_number(ms, zone), "D")) for ms in (span.first_ms, span.last_ms))
        wanted = " ".join(f"{word} {day}" for word, day in (("from", days.first), ("to", days.last)) if day)
        message = f"{config.events.path} has no rows {wanted}; it has those of {known}"
        raise DataError(message)
    parts, last_days, splits = zip(*chosen, strict=True)
    return RawDataset(parts, last_days, log.work.store.carry_over_folder, splits)


def _check_plan(log: LogRows, raw_dataset: RawDataset, schema: Schema) -> None:
    """Refuse rows that would be encoded as something else than in training.

    Raises:
        SchemaMismatchError: naming the first difference.
    """
    planned, trained = [plan.name for plan in log.planned], [spec.name for spec in schema.features]
    if planned != trained:
        changed = ", ".join(sorted(set(planned).symmetric_difference(trained))) or "their order"
        message = f"this version of moerank makes other features of the model's recipe ({changed}); train it again"
        raise SchemaMismatchError(message)
    columns = raw_dataset.schema
    for plan, spec in zip(log.planned, schema.features, strict=True):
        if isinstance(spec, IdSpec) and not spec.cross:
            kind = columns.field(plan.raw[0]).type
            kind = kind.value_type if pa.types.is_list(kind) else kind
            _check_type(plan.raw[0], kind, spec.dtype)
    for key in schema.keys:
        if key.name in columns.names:
            _check_type(key.name, columns.field(key.name).type, key.dtype)


def _check_type(name: str, kind: pa.DataType, trained: str) -> None:
    """Whole numbers and texts have different hashes: all ids would be unknown."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not pa.types.is_null(kind) and is_text != (trained == "string"):
        message = (
            f"column {name!r} is {kind} in these rows, but the model was trained on {trained} ids, so every id would "
            "be unknown; cast it, for example with data.events.columns in a view of the rows"
        )
        raise SchemaMismatchError(message)
