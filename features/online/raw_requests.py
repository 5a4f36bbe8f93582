"""Requests made of training rows, with raw values, by which a build proves that requests are encoded as rows were.

The last partition's first rows become requests that give every value themselves, as it was at the row's time. The
request encoder must make of each the row that the model trains on. They stay beside the features, and the export makes
a bundle's golden requests of them.
"""

import datetime as dt
import decimal
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError, RequestError
from contract.files import write_text
from contract.inputs import PartInputs
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Part, Schema
from features.encode.fit_encoders import raw_values
from features.encode.write_splits import EncodedSplits, encode_feature
from features.incremental.raw_dataset import RawDataset, where
from features.incremental.splits import LEFT_OUT
from features.online.compiled import without_compiler
from features.online.given_values import GivenValues, RankRequest
from features.online.request_encoder import RequestEncoder
from features.online.request_values import LARGEST_EXACT, LIST_VALUES
from features.point_in_time.feature_plan import FeaturePlan

REQUESTS_FILE = "raw_requests.json"
MOST = 64
"""Rows that are replayed."""


def load_requests(directory: Path) -> list[RankRequest]:
    """The raw requests of a build, each with one candidate; none of a build before there were any."""
    path = directory / REQUESTS_FILE
    if not path.is_file():
        return []
    return [request_from_json(each) for each in json.loads(path.read_text(encoding="utf-8"))]


def request_from_json(values: Mapping[str, Any]) -> RankRequest:
    """A request as `request_to_json` wrote it."""
    return RankRequest(**values)


def request_to_json(request: RankRequest) -> dict[str, Any]:
    """A request's fields as JSON values."""
    return {name: getattr(request, name) for name in RankRequest.__dataclass_fields__}


def replay_rows(
    raw_dataset: RawDataset,
    encoded: list[EncodedSplits],
    feature_plans: list[FeaturePlan],
    priors: dict[str, float],
    made: Path,
    *,
    as_computed: bool = False,
) -> int:
    """Encode rows of the last partition as requests, compare, and keep the requests in `made`, which is complete.

    Where rows hold what was served, requests are compared with what the rows' own values encode to, `as_computed`.

    Returns:
        How many rows were compared.

    Raises:
        DataError: a request is not encoded as its training row was, naming the feature; or none can be encoded.
    """
    with without_compiler():
        encoder = RequestEncoder.open(made)
    rows = raw_dataset.splits[-1]
    number = min((int(split) for split in np.unique(rows) if split != LEFT_OUT), default=None)
    if number is None or not encoded or number not in encoded[-1].pieces:
        return _save([], made)
    keys = [key.name for key in encoder.schema.keys]
    names = list(dict.fromkeys([*keys, *(column for plan in feature_plans for column in plan.raw)]))
    part = raw_dataset.parts[-1]
    begin, first = 0, pa.table({})
    for group in range(part.metadata.num_row_groups):
        count = part.metadata.row_group(group).num_rows
        first = where(part.read(names, [group]), rows[begin : begin + count] == number)
        begin += count
        if len(first):
            break
    first = first.slice(0, MOST)
    if as_computed:
        known = encoder.encoder
        pairs = zip(feature_plans, encoder.schema.features, strict=True)
        columns = {spec.name: encode_feature(known, spec, raw_values(first, plan, priors)) for plan, spec in pairs}
        expected = pa.table(columns).to_pylist()
    else:
        expected = pq.ParquetFile(encoded[-1].pieces[number]).read_row_group(0).slice(0, len(first)).to_pylist()
    requests, refused = [], []
    for request, row in zip(_requests(first, feature_plans, priors, encoder.schema), expected, strict=True):
        try:
            inputs = encoder.encode(request).inputs
        except RequestError as error:
            refused.append(error)
            continue
        schema = encoder.schema
        _require_same(schema, schema.request, inputs.request, row, request)
        _require_same(schema, schema.candidate, inputs.candidate, row, request)
        requests.append(request)
    if refused and not requests:
        message = f"no training row can be sent as a request: {refused[0]}; such a model could answer no request"
        raise DataError(message)
    return _save(requests, made)


def _save(requests: list[RankRequest], made: Path) -> int:
    write_text(json.dumps([request_to_json(each) for each in requests]) + "\n", made / REQUESTS_FILE)
    return len(requests)


def _requests(
    rows: pa.Table, feature_plans: list[FeaturePlan], priors: dict[str, float], schema: Schema
) -> list[RankRequest]:
    """One request per row, which gives every value that a request may give."""
    allowed = GivenValues(schema).allowed
    columns: dict[str, list[Any]] = {}
    vectors: dict[str, list[list[Any]]] = {}
    for plan, spec in zip(feature_plans, schema.features, strict=True):
        if isinstance(spec, IdSpec) and (spec.cross or spec.name in {schema.user_key, schema.item_key}):
            continue
        values = [_plain(each, spec) for each in raw_values(rows, plan, priors).to_pylist()]
        if isinstance(spec, DenseSpec) and spec.vector:
            vectors.setdefault(spec.vector, []).append(values)
        else:
            columns[spec.name] = values
    columns |= {name: [list(each) for each in zip(*parts, strict=True)] for name, parts in vectors.items()}
    for key in schema.keys:
        if key.name not in columns and key.name not in {schema.user_key, schema.item_key}:
            columns[key.name] = [_plain(each, None) for each in rows[key.name].to_pylist()]
    ids = {key: rows[key].to_pylist() if key else [None] * len(rows) for key in (schema.user_key, schema.item_key)}

    def side(name: str, place: int) -> dict[str, Any]:
        return {column: values[place] for column, values in columns.items() if column in allowed[name]}

    return [
        RankRequest(
            user=_whole(ids[schema.user_key][place]),
            items=[_whole(ids[schema.item_key][place]) if schema.item_key else 0],
            context=side("context", place),
            user_features=side("user", place),
            item_features={name: [value] for name, value in side("item", place).items()},
        )
        for place in range(len(rows))
    ]


def _whole(value: Any) -> Any:
    """Ids may lie in columns of floats."""
    return int(value) if isinstance(value, float) and math.isfinite(value) else value


def _plain(value: Any, spec: FeatureSpec | None) -> Any:
    """A value of a raw column as a caller would send it."""
    if isinstance(value, list):
        return [_plain(each, spec) for each in value[-LIST_VALUES:]]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(spec, DenseSpec):
        return float(value) if isinstance(value, int) and abs(value) > LARGEST_EXACT else value
    return _whole(value)


def _require_same(schema: Schema, part: Part, piece: PartInputs, row: Mapping[str, Any], request: RankRequest) -> None:
    lengths = piece.list_lengths[:, 0].tolist()
    lists = np.split(piece.list_values, np.cumsum(lengths)[:-1]) if lengths else []
    encoded: Iterable[tuple[FeatureSpec, Any]] = [
        *zip(part.ids, piece.ids[0].tolist(), strict=True),
        *zip(part.dense, piece.dense[0].tolist(), strict=True),
        *((spec, values.tolist()) for spec, values in zip(part.lists, lists, strict=True)),
    ]
    for spec, value in encoded:
        if value != (row[spec.name] or []) if isinstance(value, list) else value != row[spec.name]:
            message = (
                f"feature {spec.name!r}: the training row of {schema.user_key} {request.user!r} and {schema.item_key} "
                f"{request.items[0]!r} has {row[spec.name]!r}, but a request with the same values is encoded as "
                f"{value!r}; the model would be served other inputs than it learned from, so remove the feature"
            )
            raise DataError(message)
