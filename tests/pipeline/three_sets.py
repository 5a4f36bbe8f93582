"""Three logs as teams have them: a shop, a news feed, a Spark export; nothing in them is rewritten beforehand."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2026, 1, 1)  # noqa: DTZ001 - the shop's times have no zone
EPOCH_MS = 1_767_225_600_000


def write_shop(directory: Path, events: int = 6_000) -> None:
    """String ids, nested attributes, times without zone, purchases days later in the same log."""
    draw = np.random.default_rng(1)
    users, items = [f"u-{i:04d}" for i in range(200)], [f"SKU-{i:06d}" for i in range(80)]
    kinds = [str(kind) for kind in draw.choice(["shoes", "bags", "hats"], len(items))]
    catalog = [
        {
            "sku": sku,
            "attrs": {
                "category": kinds[i],
                "brand": {"name": f"b{i % 7}", "country": "IT"},
                "price_cents": 199 + 37 * i,
            },
            "images": [{"w": 640, "h": 480}],
            "tags": [{"k": "season", "v": "ss"}],
        }
        for i, sku in enumerate(items)
    ]
    customers = [
        {
            "customer_id": user,
            "address": {"country": ["DE", "FR"][i % 2], "zip": None},
            "birth_date": date(1950 + i % 50, 1, 1),
        }
        for i, user in enumerate(users)
    ]
    log = []
    for n, second in enumerate(np.sort(draw.uniform(0, 45 * 86_400, events)).tolist()):
        user, item, at = int(draw.integers(200)), int(draw.integers(80)), START + timedelta(seconds=second)
        clicked = bool(draw.random() < (0.5 if (user + len(kinds[item])) % 2 else 0.1))
        row = {
            "event_id": f"e{n}", "customer_id": users[user], "sku": items[item], "ts": at,
            "event_type": "click" if clicked else "view", "device": {"os": ["ios", "web"][n % 2]}, "amount_cents": None,
            "position": n % 19 + 1,
        }  # fmt: skip
        log.append(row)
        if clicked and draw.random() < 0.35:
            later = at + timedelta(days=float(draw.exponential(2.5)))
            log.append(
                {
                    **row,
                    "event_id": f"p{n}",
                    "ts": later,
                    "event_type": "purchase",
                    "amount_cents": 999 + n,
                    "position": None,
                }
            )
    log.sort(key=lambda row: str(row["ts"]))
    pq.write_table(pa.Table.from_pylist(catalog), directory / "catalog.parquet")
    pq.write_table(pa.Table.from_pylist(customers), directory / "customers.parquet")
    pq.write_table(pa.Table.from_pylist(log), directory / "log.parquet")


def write_news(directory: Path, events: int = 6_000) -> None:
    """Impressions and clicks in two files, epoch milliseconds, no users' table."""
    draw = np.random.default_rng(2)
    at = EPOCH_MS + np.sort(draw.integers(0, 14 * 86_400_000, events))
    users, articles = draw.integers(0, 300, events), draw.integers(0, 100, events)
    clicked = draw.random(events) < np.where((users + articles) % 3 == 0, 0.5, 0.1)
    impressions = {
        "impression_id": np.arange(events), "uid": users, "article": articles, "ts_ms": at,
        "slot": draw.integers(0, 10, events), "topic": [f"t{a % 8}" for a in articles],
    }  # fmt: skip
    clicks = {
        "impression_id": np.arange(events)[clicked],
        "click_ts_ms": (at + draw.integers(0, 60_000, events))[clicked],
        "dwell_s": draw.exponential(30, events)[clicked],
    }
    pq.write_table(pa.table(impressions), directory / "impressions.parquet")
    pq.write_table(pa.table(clicks), directory / "clicks.parquet")


def write_export(directory: Path, events: int = 400) -> None:
    """Folders by day as Spark writes them, decimals, times without zone, two regressions in different units."""
    draw = np.random.default_rng(3)
    for number in range(10):
        day = date(2026, 3, 1) + timedelta(days=number)
        folder = directory / "table" / f"dt={day}"
        folder.mkdir(parents=True)
        users, places, x = draw.integers(0, 100, events), draw.integers(0, 50, events), draw.normal(size=(events, 4))
        moments = np.datetime64(day, "us") + draw.integers(0, 86_400 * 10**6, events).astype("timedelta64[us]")
        basket = np.maximum(20 + 10 * x[:, 1] + 5 * (users % 4), 1).round(2)
        columns = {
            "user_id": users, "rest_id": places, "event_time": moments, "city": [f"c{u % 7}" for u in users],
            "promo": draw.random(events) < 0.2,
            **{f"f_{j:02d}": np.where(x[:, 3] > 2, np.nan, x[:, j]).astype(np.float32) for j in range(4)},
            "eta_minutes": np.exp(2.5 + 0.3 * x[:, 0] + 0.3 * x[:, 2]),
            "basket_eur": pa.array(basket).cast(pa.decimal128(10, 2)),
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / "part-00000-abc.snappy.parquet")
    (directory / "table" / "_SUCCESS").touch()
