"""The log of served requests as events: Parquet with one row per candidate, beside the kept days, made file by file.

A row says where it lies (`SERVED_ROW`), by which its features are found when training rows are encoded. What the log
tells beside keys, time and context has names that begin with ``served_``, so that no feature clashes with it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.columns import SERVED_ROW
from contract.dataset import EncodedWith
from contract.digests import digest_of
from contract.errors import ConfigError, DataError
from contract.files import place
from contract.integers import signed
from contract.schema import DenseSpec, IdSpec, KeySpec, Schema
from features.encode.moment_values import as_days, as_milliseconds
from features.feature_config import FeaturesConfig
from features.served.decode_features import decode_feature
from features.served.log_format import (
    AT_MS,
    CONTEXT,
    ENCODING_FILES,
    ENCODINGS_FOLDER,
    ITEM,
    REQUEST_ID,
    USER,
    ServedEncoding,
    candidate_rows,
    feature_column,
)
from features.source.data_files import find_files
from features.source.filesystems import file_facts, filesystem_of, without_protocol
from features.source.parquet_files import write_table

FACTS = ("position", "score", "propensity", "version", "arm", "score_name", "score_version", "exploration", "stage")
"""What the log says of a candidate, offered as ``served_position`` and so on."""
ROW_BITS = 32
_DATE_FOLDER = "/date="


def served_log(config: FeaturesConfig) -> list[str]:
    """The files of the recipe's log of served requests.

    Raises:
        DataError: there are none.
        ConfigError: they are those of several models.
    """
    files = find_files(str(config.events.served), "data.events.served")
    roots = sorted({_root(file) for file in files})
    if len(roots) > 1:
        message = f"data.events.served holds the logs of several models; name one of them, such as {roots[0]}"
        raise ConfigError(message)
    return files


def with_served_rows(config: FeaturesConfig, cache: Path) -> FeaturesConfig:
    """The recipe whose log is, or is joined with, rows in `cache`; as it is where it names no log of served requests.

    Rows of files that are there already are not made again.

    Raises:
        DataError: no such log, or one that cannot be read.
        ConfigError: several models, or other keys than the recipe's.
    """
    if config.events.served is None:
        return config
    files = served_log(config)
    cache.mkdir(parents=True, exist_ok=True)
    tags = {digest_of(*fact): fact[0] for fact in file_facts(files)}
    made = {path.stem.partition("-")[2]: path for path in cache.glob("*.parquet")}
    for tag in made.keys() - tags.keys():
        made.pop(tag).unlink()
    number = max((int(path.name.partition("-")[0]) for path in made.values()), default=-1)
    for tag, file in tags.items():
        if tag not in made:
            number += 1
            rows = _event_rows(_read(file), file, config, cache, number)
            write_table(rows, cache / f"{number:08d}-{tag}.parquet")
    events = config.events
    changes = {"served": str(cache), "path": events.path if events.path or events.sql else str(cache)}
    return config.model_copy(update={"events": events.model_copy(update=changes)})


def load_encoding(cache: Path, fingerprint: str) -> ServedEncoding:
    """What rows in a cache were encoded with."""
    return ServedEncoding.load(cache / ENCODINGS_FOLDER / fingerprint)


def _root(file: str) -> str:
    return file.partition(_DATE_FOLDER)[0]


def _read(file: str) -> pa.Table:
    filesystem = filesystem_of(file)
    try:
        if filesystem is None:
            return pq.ParquetFile(without_protocol(file)).read()
        with filesystem.open(file, "rb") as stream:
            return pq.ParquetFile(stream).read()
    except (OSError, pa.ArrowInvalid) as error:
        message = f"data.events.served: {file} cannot be read as Parquet ({error}); remove it, or restore it"
        raise DataError(message) from error


def _event_rows(table: pa.Table, file: str, config: FeaturesConfig, cache: Path, number: int) -> pa.Table:
    """The candidates of one file of the log as events."""
    encoded_with = EncodedWith.read(table.schema.metadata)
    if encoded_with is None:
        message = f"data.events.served: {file} is not a log of served requests; `moerank serve --log DIR` writes one"
        raise DataError(message)
    _fetch_encoding(_root(file), encoded_with.schema_fingerprint, cache)
    encoding = load_encoding(cache, encoded_with.schema_fingerprint)
    _check_keys(encoding.schema, config)
    context = context_columns(encoding.schema, table[CONTEXT].to_pylist())
    for name, values in context.items():
        table = table.append_column(f"{CONTEXT}__{name}", values)
    rows = candidate_rows(table)
    events = config.events
    columns: dict[str, Any] = {REQUEST_ID: rows[REQUEST_ID]}
    columns |= {key: rows[column] for key, column in ((events.user, USER), (events.item, ITEM)) if key}
    columns[str(events.time)] = rows[AT_MS].cast(pa.timestamp("ms", "UTC"))
    columns |= {f"served_{name}": rows[name] for name in FACTS if name in rows.column_names}
    columns |= {name: rows[f"{CONTEXT}__{name}"] for name in context if name not in columns}
    named = {*events.user_columns, *events.item_columns} - columns.keys()
    for spec in encoding.schema.features:
        if spec.name in named:
            served = rows[feature_column(spec.name)].combine_chunks()
            columns[spec.name] = decode_feature(encoding.encoder, spec, served)
    columns[SERVED_ROW] = pa.array(np.arange(len(rows), dtype=np.int64) + (number << ROW_BITS))
    features = [feature_column(spec.name) for spec in encoding.schema.features]
    return pa.table({**columns, **{name: rows[name] for name in features}}).replace_schema_metadata(
        encoded_with.metadata()
    )


def _fetch_encoding(root: str, fingerprint: str, cache: Path) -> None:
    """Copy what a version encoded with out of the log, once."""
    folder = cache / ENCODINGS_FOLDER / fingerprint
    if folder.is_dir():
        return
    source, filesystem = f"{root}/{ENCODINGS_FOLDER}/{fingerprint}", filesystem_of(root)
    for name in ENCODING_FILES:
        file = f"{source}/{name}"
        if filesystem is None and Path(without_protocol(file)).is_file():
            place(Path(without_protocol(file)), folder / name)
        elif filesystem is not None and filesystem.isfile(file):
            folder.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(file, str(folder / name))
    if not folder.is_dir():
        message = (
            f"data.events.served: {root} lacks {ENCODINGS_FOLDER}/{fingerprint}, what its features were encoded with; "
            "copy the log whole, folders that begin with `_` included"
        )
        raise DataError(message)


def _check_keys(schema: Schema, config: FeaturesConfig) -> None:
    for entry, here, served in (
        ("user", config.events.user, schema.user_key),
        ("item", config.events.item, schema.item_key),
    ):
        if (here or "") != served:
            message = (
                f"data.events.{entry} is {here!r}, but the served model calls it {served!r}; "
                "a recipe that learns from its log needs the same names"
            )
            raise ConfigError(message)


def context_columns(schema: Schema, texts: Sequence[str]) -> dict[str, pa.Array]:
    """The context of requests [rows] as columns of the types that the model's raw data had."""
    contexts = [json.loads(text) for text in texts]
    specs: dict[str, IdSpec | DenseSpec | KeySpec] = {key.name: key for key in schema.keys if key.side == "context"}
    for spec in schema.features:
        if spec.side == "context" and not (isinstance(spec, IdSpec) and spec.cross):
            specs[(isinstance(spec, DenseSpec) and spec.vector) or spec.name] = spec
    return {name: _context_column(spec, name, contexts) for name, spec in specs.items()}


def _context_column(spec: IdSpec | DenseSpec | KeySpec, name: str, contexts: Sequence[Mapping[str, Any]]) -> pa.Array:
    values = [context.get(name) for context in contexts]
    if isinstance(spec, DenseSpec) and spec.vector:
        return pa.array(values, pa.list_(pa.float64()))
    if spec.moment == "date":
        return pa.array(as_days(values, name), pa.int32()).cast(pa.date32())
    if spec.moment == "time":
        return pa.array(as_milliseconds(values, name), pa.int64()).cast(pa.timestamp("ms", "UTC"))
    if isinstance(spec, DenseSpec):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if isinstance(spec, IdSpec) and spec.kind == "id_list":
        lists = [None if value is None else [_plain_id(each) for each in value] for value in values]
        return pa.array(lists, pa.list_(_id_type(spec.dtype)))
    return pa.array([_plain_id(value) for value in values], _id_type(spec.dtype))


def _plain_id(value: Any) -> Any:
    """Truth values and numbers from 2^63 on are ids as their hashes take them."""
    return signed(int(value)) if isinstance(value, int) else value


def _id_type(dtype: str) -> pa.DataType:
    return pa.string() if dtype == "string" else pa.int64()
