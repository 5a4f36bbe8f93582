"""The tables of a small shop, the same on every machine."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

dice = random.Random(0)  # noqa: S311 - rows are drawn, not secrets
brands, words = ["acme", "globex", "initech"], ["sale", "new", "outdoor", "kitchen"]
shoppers: list[dict[str, Any]] = [
    {"shopper": f"s{n}", "country": dice.choice(["DE", "FR", "PL"]), "age": dice.randint(18, 80)} for n in range(60)
]
products: list[dict[str, Any]] = [
    {"product": n, "brand": dice.choice(brands), "price": round(dice.uniform(2, 90), 2), "tags": dice.sample(words, 2)}
    for n in range(40)
]
events, now = [], datetime(2026, 1, 1, tzinfo=UTC)
for _ in range(4000):
    now += timedelta(minutes=dice.randint(1, 20))
    who, what = dice.choice(shoppers), dice.choice(products)
    bought = dice.random() < (0.5 if "sale" in what["tags"] else 0.2) * (1.5 if who["age"] < 40 else 0.7)
    events.append(
        {
            "shopper": who["shopper"],
            "product": what["product"],
            "shown_at": now,
            "surface": dice.choice(["home", "search"]),
            "bought": bought,
            "spent": what["price"] * dice.choice([1, 1, 2]) if bought else 0.0,
        }
    )
Path("shop").mkdir(exist_ok=True)
for name, rows in {"events": events, "shoppers": shoppers, "products": products}.items():
    pq.write_table(pa.Table.from_pylist(rows), f"shop/{name}.parquet")
