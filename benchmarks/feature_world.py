"""The generated log of the feature benchmark and its recipe."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature_config import FeaturesConfig

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = 30
VALID_DAYS = 1
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
CHUNK_ROWS = 500_000


def write_events(path: Path, rows: int, seed: int = 0, days: int = DAYS) -> None:
    """A log in the order of time: Zipf items (1.2 over 200,000), users a twentieth of the rows, 30 days."""
    draw = np.random.default_rng(seed)
    users, items = max(rows // 20, 10), min(200_000, max(rows // 10, 10))
    writer = None
    for begin in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - begin)
        low, high = (days * DAY_MS * place // rows for place in (begin, begin + count))
        ms = np.sort(draw.integers(low, high, count)) + int(START.timestamp() * 1000)
        item = draw.zipf(1.2, count) % items
        lengths = item % 4
        flat = np.repeat(item, lengths) % 50 + np.arange(int(lengths.sum())) % 3
        table = pa.table(
            {
                "user": (draw.zipf(1.1, count) % users).astype(np.int64),
                "item": item.astype(np.int64),
                "at": pa.array(ms, pa.timestamp("ms", "UTC")),
                "category": pa.array([f"c{c}" for c in range(40)]).take(pa.array(item % 40)),
                "price": draw.gamma(2.0, 20.0, count),
                "tags": pa.ListArray.from_arrays(
                    pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)), pa.array(flat)
                ),
                "click": (draw.random(count) < 0.1 + 0.3 * (item % 7 == 0)).astype(np.int8),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def recipe(path: Path, memory_limit: str = "4GB", threads: int = 2) -> FeaturesConfig:
    """Counts over a day for user and item, a smoothed rate, the last ten items, vocabularies, buckets and lists."""
    tiles = {"windows": ["1d"], "as_of": "hour"}
    return FeaturesConfig.model_validate(
        {
            "events": {
                "path": str(path), "user": "user", "item": "item", "time": "at",
                "item_columns": ["category", "price", "tags"], "verify": False,
            },
            "features": [
                {"name": "user", "min_count": 2},
                {"name": "item", "min_count": 2},
                {"name": "category"},
                {"name": "price", "kind": "dense", "bins": 16},
                {"name": "tags", "kind": "id_list", "max_length": 5},
            ],
            "aggregates": [{"by": ["user"], **tiles}, {"by": ["item"], "of": ["click"], **tiles}],
            "histories": [{"name": "last", "of": "item", "by": "user", "last": 10, "shares": "item"}],
            "tasks": [{"name": "click", "kind": "binary", "label": "click"}],
            "split": {"by": "time", "valid": f"{VALID_DAYS}d"},
            "memory_limit": memory_limit,
            "threads": threads,
            "checks": {"leakage": "off"},
            "incremental": False,
        }
    )  # fmt: skip
