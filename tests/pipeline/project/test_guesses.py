"""What `moerank init` takes columns for: single guesses on small tables, which are neither tried nor built."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.project.draft_recipe import RawPaths, draft_recipe

ROWS = 400
START_MS, DAY_MS = 1_772_323_200_000, 86_400_000
MOMENTS = START_MS + np.arange(ROWS) * (20 * DAY_MS // ROWS)
USERS = [f"u{n % 31}" for n in range(ROWS)]
ITEMS = [f"i{n % 23}" for n in range(ROWS)]


def drafted(log: dict[str, Any], items: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The `data` block that is drafted for a log, and a table of items, in the working directory."""
    pq.write_table(pa.table(log), "log.parquet")
    if items is not None:
        pq.write_table(pa.Table.from_pylist(items), "items.parquet")
    draft = draft_recipe(RawPaths("log.parquet", items="items.parquet" if items else None), "small")
    data: dict[str, Any] = yaml.safe_load(draft.text())["data"]
    return data


def log_of(**columns: Any) -> dict[str, Any]:
    return {
        "user_id": USERS,
        "item_id": ITEMS,
        "shown_ms": MOMENTS,
        "clicked": [n % 3 == 0 for n in range(ROWS)],
    } | columns


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_outcome_of_several_words_is_a_task_for_each_but_nothing() -> None:
    words = [("ignored", "applied", "ignored", "interview")[n % 4] for n in range(ROWS)]
    log = log_of(outcome=words)
    del log["clicked"]
    tasks = drafted(log)["tasks"]
    assert [(task["name"], task["label"]) for task in tasks] == [
        ("applied", "outcome == 'applied'"),
        ("interview", "outcome == 'interview'"),
    ]
    assert not any("where" in task or "by" in task for task in tasks)


def test_an_outcome_of_two_words_is_one_task() -> None:
    log = log_of(status=[("expired", "redeemed")[n % 2] for n in range(ROWS)])
    del log["clicked"]
    (task,) = drafted(log)["tasks"]
    assert task["label"] == "status == 'redeemed'"


def test_a_key_may_be_the_field_of_a_struct_in_the_log_and_in_its_table() -> None:
    log = log_of(hotel=[{"propertyId": item, "floor": n % 5} for n, item in enumerate(ITEMS)])
    del log["item_id"]
    items = [{"property": {"id": f"i{n}", "stars": n % 5}} for n in range(23)]
    data = drafted(log, items)
    assert data["events"]["columns"][data["events"]["item"]] == "hotel.propertyId"
    assert data["items"]["columns"][data["items"]["key"]] == "property.id"


def test_the_end_of_an_event_tells_its_moment_better_than_its_day() -> None:
    days = pa.array(MOMENTS // DAY_MS, pa.int32()).cast(pa.date32())
    log = log_of(event_date=days, end_ms=MOMENTS + 5_000)
    del log["shown_ms"]
    assert drafted(log)["events"]["time"] == "end_ms"


def test_the_beginning_of_an_event_is_its_moment_and_not_its_end() -> None:
    log = log_of(start_ms=MOMENTS, end_ms=MOMENTS + 5_000)
    del log["shown_ms"]
    assert drafted(log)["events"]["time"] == "start_ms"


def test_a_mark_that_some_rows_have_is_a_feature() -> None:
    log = log_of(promo=pa.array(["sale" if n % 4 == 0 else None for n in range(ROWS)]), site=["de"] * ROWS)
    names = {feature["name"] for feature in drafted(log)["features"]}
    assert "promo" in names
    assert "site" not in names


def test_a_size_may_have_a_value_of_its_own_in_each_row_of_a_table_of_items() -> None:
    items = [{"item_id": f"i{n}", "price": 1_000 + n, "row_id": n} for n in range(23)]
    names = {feature["name"] for feature in drafted(log_of(), items)["features"]}
    assert "price" in names
    assert "row_id" not in names
