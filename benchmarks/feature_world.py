"""The generated log of the feature benchmark, its recipe, and the same job in plain DuckDB SQL and in polars."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from features.config import FeaturesConfig

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
                "item_columns": ["category", "price", "tags"],
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
        }
    )  # fmt: skip


_TILES = """
CREATE TEMP TABLE {key}_tiles AS
SELECT "{key}", hour, sum(n) OVER past AS n, sum(clicks) OVER past AS clicks FROM (
    SELECT "{key}", hour, count(*) AS n, sum(click) AS clicks FROM log GROUP BY ALL)
WINDOW past AS (PARTITION BY "{key}" ORDER BY hour RANGE BETWEEN 24 PRECEDING AND 1 PRECEDING)
"""
_VOCABULARY = """
CREATE TEMP TABLE {key}_words AS
SELECT word, row_number() OVER (ORDER BY n DESC, word) AS row FROM (
    SELECT {word} AS word, count(*) AS n FROM log WHERE train GROUP BY ALL) WHERE n >= {least}
"""
_ENCODED = """
COPY (
SELECT coalesce(u.row, 0)::INT AS "user", coalesce(i.row, 0)::INT AS item, coalesce(c.row, 0)::INT AS category,
    list_aggregate(list_transform(p.edges, lambda e: (log.price >= e)::INT), 'sum')::FLOAT AS price,
    list_transform(log.tags[-5:], lambda t: (t + 1)::INT) AS tags,
    coalesce(ut.n, 0)::FLOAT AS user_count, coalesce(it.n, 0)::FLOAT AS item_count,
    ((coalesce(it.clicks, 0) + 20 * p.rate) / (coalesce(it.n, 0) + 20))::FLOAT AS item_rate,
    lists.last AS last, log.click::FLOAT AS label, log.ms AS ms
FROM log CROSS JOIN numbers p LEFT JOIN user_words u ON u.word = log."user" LEFT JOIN item_words i ON i.word = log.item
LEFT JOIN category_words c ON c.word = log.category
LEFT JOIN user_tiles ut ON ut."user" = log."user" AND ut.hour = log.hour
LEFT JOIN item_tiles it ON it.item = log.item AND it.hour = log.hour
LEFT JOIN lists ON lists.row = log.row
WHERE {which} ORDER BY {order}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)
"""


def build_with_sql(path: Path, target: Path, memory_limit: str = "4GB", threads: int = 2) -> None:
    """The job as somebody would write it in DuckDB, without online tables, checks or a schema."""
    connection = duckdb.connect(config={"memory_limit": memory_limit, "threads": threads})
    end = int((START + timedelta(days=DAYS - VALID_DAYS)).timestamp() * 1000)
    connection.execute(
        f"""CREATE TEMP TABLE log AS SELECT *, epoch_ms("at") AS ms, epoch_ms("at") // {HOUR_MS} AS hour,
        epoch_ms("at") <= {end} AS train, row_number() OVER (ORDER BY "at", "user", item) AS row FROM '{path}'"""  # noqa: S608
    )
    for key in ("user", "item"):
        connection.execute(_TILES.format(key=key))
    for key, least in (("user", 2), ("item", 2), ("category", 1)):
        connection.execute(_VOCABULARY.format(key=key, word=f'"{key}"', least=least))
    connection.execute(
        "CREATE TEMP TABLE numbers AS SELECT quantile_cont(price, [x / 16 for x in range(17)]) AS edges,"
        " avg(click) AS rate FROM log WHERE train"
    )
    connection.execute(
        """CREATE TEMP TABLE lists AS SELECT log.row AS row, list(coalesce(w.row, 0)::INT) OVER (
        PARTITION BY "user" ORDER BY ms, log.row ROWS BETWEEN 10 PRECEDING AND 1 PRECEDING) AS last
        FROM log LEFT JOIN item_words w ON w.word = item"""
    )
    for name, which, order in (("train", "train", "hash(log.row)"), ("valid", "NOT train", "hash(log.row)")):
        connection.execute(_ENCODED.format(which=which, order=order, target=target / f"{name}.parquet"))
    connection.close()


def build_with_polars(path: Path, target: Path) -> None:
    """The same job in polars' eager frames."""
    end = int((START + timedelta(days=DAYS - VALID_DAYS)).timestamp() * 1000)
    log = pl.read_parquet(path).with_columns(ms=pl.col("at").dt.epoch("ms")).sort("ms", "user", "item")
    log = log.with_columns(hour=pl.col("ms") // HOUR_MS, train=pl.col("ms") <= end).with_row_index("row")
    train = log.filter("train")
    words = {
        key: train.group_by(key).len().filter(pl.col("len") >= least).sort("len", key, descending=[True, False])
        .with_row_index(f"{key}_row", offset=1).select(key, f"{key}_row")
        for key, least in (("user", 2), ("item", 2), ("category", 1))
    }  # fmt: skip
    for key in ("user", "item"):
        tiles = log.group_by(key, "hour").agg(n=pl.len(), clicks=pl.col("click").sum().cast(pl.Int64)).sort(key, "hour")
        past = tiles.rolling(index_column="hour", period="24i", offset="-24i", closed="left", group_by=key).agg(
            pl.col("n").sum().alias(f"{key}_n"), pl.col("clicks").sum().alias(f"{key}_clicks")
        )
        log = log.join(past, on=[key, "hour"], how="left")
    for key, found in words.items():
        log = log.join(found, on=key, how="left").with_columns(pl.col(f"{key}_row").fill_null(0).cast(pl.Int32))
    edges = np.quantile(train["price"].to_numpy(), np.linspace(0, 1, 17))
    rate = float(train["click"].cast(pl.Float64).mean() or 0.0)
    shifted = [pl.col("item_row").shift(step).over("user").alias(f"before_{step}") for step in range(10, 0, -1)]
    log = log.with_columns(shifted).with_columns(
        last=pl.concat_list([f"before_{step}" for step in range(10, 0, -1)]).list.drop_nulls(),
        price=pl.Series(np.interp(log["price"].to_numpy(), edges, np.arange(17)).astype(np.float32)),
        tags=pl.col("tags").list.tail(5).list.eval(pl.element() + 1),
        item_rate=(pl.col("item_clicks").fill_null(0) + 20 * rate) / (pl.col("item_n").fill_null(0) + 20),
    )
    kept = [
        "user_row",
        "item_row",
        "category_row",
        "price",
        "tags",
        "user_n",
        "item_n",
        "item_rate",
        "last",
        "click",
        "ms",
    ]
    for name, part in (("train", log.filter("train")), ("valid", log.filter(~pl.col("train")))):
        part.select(kept).sample(fraction=1.0, shuffle=True, seed=0).write_parquet(
            target / f"{name}.parquet", compression="zstd", row_group_size=65_536
        )
