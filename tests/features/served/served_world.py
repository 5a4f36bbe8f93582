"""The raw world served: its last day's events asked of an encoder as requests, and the log of what it answered."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.graph_names import PRIORS_FILE
from contract.schema import SCHEMA_FILE, Schema
from features.build import build
from features.encode.vocabulary import VOCABULARY_FILE
from features.feature_config import FeaturesConfig
from features.online.request_encoder import RankRequest, RequestEncoder
from features.served.log_format import ENCODINGS_FOLDER
from serving.graph.answer import RankAnswer
from serving.observe.served_request import LoggedAnswer, answers_table
from tests.features.raw_world import LAST_DAY, quiet, raw_tables, recipe, write_raw

Requests = list[tuple[str, int, RankRequest]]
"""Ids, times in milliseconds since 1970, and requests."""
CANDIDATES = 4
NEW_ITEM = 4711
"""An item of one request in five that no version has seen before."""
AGGREGATES = [
    {"by": ["user"], "of": ["like"], "as_of": "day", "windows": ["all", "2d"]},
    {"by": ["item"], "of": ["like"], "as_of": "day"},
]


def world(folder: Path) -> Requests:
    """Raw tables, features built of all but the last day, and the requests of the last day in ``log/model=shop``."""
    tables = raw_tables()
    write_raw(folder, tables)
    events = tables["events"]
    earlier = events.filter(pc.less(events["day"], int(LAST_DAY)))
    pq.write_table(earlier, folder / "events.parquet")
    built = recipe(folder, split={"by": "random", "valid": 0.2}, aggregates=AGGREGATES)
    build(built, folder / "features", quiet)
    requests = requests_of(events.filter(pc.equal(events["day"], int(LAST_DAY))))
    serve(folder / "features", folder / "log", requests)
    outcomes(folder, requests)
    return requests


def requests_of(events: pa.Table) -> Requests:
    """One request per event, with its item and others as candidates: its id, its time and itself."""
    draw = np.random.default_rng(3)
    made = []
    for number, row in enumerate(events.to_pylist()):
        others = [int(item) for item in draw.choice(40, CANDIDATES, replace=False) if item != row["item"]]
        items = [row["item"], *others[: CANDIDATES - 1], *([NEW_ITEM] if number % 5 == 0 else [])]
        request = RankRequest(row["user"], items, {"surface": row["surface"]}, {"age": 30.5} if number % 3 == 0 else {})
        made.append((f"r-{number}", int(row["at"].timestamp() * 1000), request))
    return made


def serve(features: Path, log: Path, requests: Requests) -> None:
    """Write the log that a server with these features would have written."""
    encoder = RequestEncoder.open(features)
    schema = Schema.load(features)
    beside = log / "model=shop" / ENCODINGS_FOLDER / schema.fingerprint()
    beside.mkdir(parents=True, exist_ok=True)
    for name in (SCHEMA_FILE, VOCABULARY_FILE, PRIORS_FILE):
        shutil.copyfile(features / name, beside / name)
    answers = []
    for name, at_ms, request in requests:
        count = len(request.items)
        scores = np.linspace(1, 0, count, dtype=np.float32)
        answer = RankAnswer(
            model="shop", version=1, predictions={task.name: scores for task in schema.tasks}, scores=scores,
            order=np.arange(count, dtype=np.uint32), score_version="s", unknown_user=False,
            unknown_items=np.zeros(0, np.uint32), request_id=name, arm="current",
        )  # fmt: skip
        answers.append(LoggedAnswer(request, encoder.encode(request).inputs, answer, at_ms))
    folder = log / "model=shop" / "date=2024-03-06" / "hour=00"
    folder.mkdir(parents=True, exist_ok=True)
    half = len(answers) // 2
    for number, piece in enumerate((answers[:half], answers[half:])):
        pq.write_table(answers_table(schema, piece), folder / f"{len(list(folder.iterdir()))}-{number}.parquet")


def outcomes(folder: Path, requests: Requests) -> None:
    """Clicks on some candidates, as a table of their own."""
    draw = np.random.default_rng(5)
    rows = [
        {"request_id": name, "item": item, "liked": 1, "clicked_at": at_ms + 1000}
        for name, at_ms, request in requests
        for item in request.items
        if draw.random() < 0.4
    ]
    table = pa.Table.from_pylist(rows)
    at = table["clicked_at"].cast(pa.timestamp("ms", "UTC"))
    pq.write_table(table.set_column(3, "clicked_at", at), folder / "clicks.parquet")


def served_recipe(folder: Path, **changes: Any) -> FeaturesConfig:
    """The recipe that learns from the log, whose outcomes are clicks."""
    click = {"name": "click", "path": str(folder / "clicks.parquet"), "by": ["request_id", "item"],
             "time": "clicked_at", "within": "1h"}  # fmt: skip
    blocks: dict[str, Any] = {
        "events": {"served": str(folder / "log"), "user": "user", "item": "item", "time": "at"},
        "labels": [click],
        "aggregates": AGGREGATES,
        "tasks": [{"name": "like", "kind": "binary", "label": "click", "within": "1h"}],
        "split": {"by": "random", "valid": 0.3},
        "checks": {"leakage": "off"},
        **changes,
    }
    return recipe(folder, **blocks)
