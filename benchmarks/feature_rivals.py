"""The feature benchmark's job as somebody would write it by hand: in plain DuckDB SQL, and in polars.

Both give the columns that the build gives and stop there: no verified pages, no quality report, no online tables, no
schema. A test compares their rows with the build's. Histories take the rows before, so that among events of a user at
the same moment one sees the other, which the build does not allow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from benchmarks.feature_world import DAY_MS, HOUR_MS, VALID_DAYS

VOCABULARIES = {"user": 2, "item": 2, "category": 1}
"""Columns that become rows of a vocabulary, and how often a value must occur."""
POSITIONS = {"price": 16, "user__count_1d": 24, "item__click_mean_1d": 24, "item__count_1d": 24}
"""Columns that become positions among quantiles, and how many bins there are."""
PRIOR = 20
SAMPLE_ROWS = 200_000
"""Rows that quantiles are taken of, as the build does."""

_LOG = f"""
CREATE TEMP TABLE log AS SELECT *, ms <= (SELECT epoch_ms(max("at")) FROM '{{path}}') - {VALID_DAYS * DAY_MS} AS train
FROM (SELECT *, epoch_ms("at") AS ms, epoch_ms("at") // {HOUR_MS} AS hour FROM '{{path}}')
"""  # noqa: S608 - a benchmark's own paths
_TILES = """
CREATE TEMP TABLE {key}_tiles AS
SELECT "{key}", hour, sum(n) OVER past AS n, sum(clicks) OVER past AS clicks FROM (
    SELECT "{key}", hour, count(*) AS n, sum(click) AS clicks FROM log GROUP BY ALL)
WINDOW past AS (PARTITION BY "{key}" ORDER BY hour RANGE BETWEEN 24 PRECEDING AND 1 PRECEDING)
"""
_WORDS = """
CREATE TEMP TABLE {key}_words AS SELECT word, (row_number() OVER (ORDER BY n DESC, word))::INT AS row FROM (
    SELECT "{key}" AS word, count(*) AS n FROM {rows} GROUP BY ALL) WHERE n >= {least}
"""
_JOINED = f"""
CREATE TEMP TABLE joined AS
SELECT log."user", log.item, ms, train, click, price, coalesce(u.row, 0) AS user_row, coalesce(i.row, 0) AS item_row,
    coalesce(c.row, 0) AS category_row,
    list_transform(tags[-5:], lambda t: coalesce(list_position({{tags}}, t), 0)::INT) AS tags,
    coalesce(ut.n, 0)::DOUBLE AS user__count_1d, coalesce(it.n, 0)::DOUBLE AS item__count_1d,
    (coalesce(it.clicks, 0) + {PRIOR} * {{rate}}) / (coalesce(it.n, 0) + {PRIOR}) AS item__click_mean_1d,
    list(coalesce(i.row, 0)) OVER (PARTITION BY log."user" ORDER BY ms, log.item
        ROWS BETWEEN 10 PRECEDING AND 1 PRECEDING) AS last
FROM log LEFT JOIN user_words u ON u.word = log."user" LEFT JOIN item_words i ON i.word = log.item
LEFT JOIN category_words c ON c.word = log.category
LEFT JOIN user_tiles ut ON ut."user" = log."user" AND ut.hour = log.hour
LEFT JOIN item_tiles it ON it.item = log.item AND it.hour = log.hour
"""  # noqa: S608
_WRITE = """
COPY (
SELECT user_row AS "user", item_row AS item, category_row AS category, {price} AS price, tags,
    {user__count_1d} AS user__count_1d, {item__click_mean_1d} AS item__click_mean_1d,
    {item__count_1d} AS item__count_1d, last, click::FLOAT AS label__click, 1::FLOAT AS weight__click,
    hash("user") AS __user, hash(item) AS __item, ms AS __time
FROM joined WHERE {which} ORDER BY hash(ms, "user", item)
) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536)
"""


def build_with_sql(path: Path, target: Path, memory_limit: str = "4GB", threads: int = 2) -> None:
    """The job in DuckDB; ``train.parquet`` and ``valid.parquet`` lie in `target` then."""
    target.mkdir(parents=True, exist_ok=True)
    spill = str(target / "spill")
    settings: dict[str, Any] = {"memory_limit": memory_limit, "threads": threads, "temp_directory": spill}
    connection = duckdb.connect(config=settings)
    connection.execute(_LOG.format(path=path))
    for key in ("user", "item"):
        connection.execute(_TILES.format(key=key))
    for key, least in VOCABULARIES.items():
        connection.execute(_WORDS.format(key=key, rows="log WHERE train", least=least))
    unnested = "(SELECT unnest(tags) AS tags FROM log WHERE train)"
    connection.execute(_WORDS.format(key="tags", rows=unnested, least=1))
    tags = [word for (word,) in connection.execute("SELECT word FROM tags_words ORDER BY row").fetchall()]
    ((rate,),) = connection.execute("SELECT avg(click) FROM log WHERE train").fetchall()
    connection.execute(_JOINED.format(tags=tags, rate=rate))
    wanted = ", ".join(f"quantile_cont({c}, [x / {n} FOR x IN range({n + 1})])" for c, n in POSITIONS.items())
    sample = f"(SELECT * FROM joined WHERE train) USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) REPEATABLE (0)"  # noqa: S608
    (edges,) = connection.execute(f"SELECT {wanted} FROM {sample}").fetchall()  # noqa: S608
    positions = {c: _position(c, sorted(set(found))) for c, found in zip(POSITIONS, edges, strict=True)}
    for name, which in (("train", "train"), ("valid", "NOT train")):
        connection.execute(_WRITE.format(**positions, which=which, target=target / f"{name}.parquet"))
    connection.close()


def _position(column: str, edges: Sequence[float]) -> str:
    """A column's place among its edges: the number of its bin and how far into it, found by halving."""

    def within(low: int, high: int) -> str:
        if high - low == 1:
            return f"{low} + ({column} - {edges[low]!r}) / {edges[high] - edges[low]!r}"
        middle = (low + high) // 2
        return f"CASE WHEN {column} < {edges[middle]!r} THEN {within(low, middle)} ELSE {within(middle, high)} END"

    last = len(edges) - 1
    return f"greatest(0, least({last}, {within(0, last) if last else 0}))::FLOAT"


def build_with_polars(path: Path, target: Path) -> None:
    """The job in polars' eager frames."""
    target.mkdir(parents=True, exist_ok=True)
    log = pl.read_parquet(path).with_columns(ms=pl.col("at").dt.epoch("ms")).sort("ms", "user", "item")
    log = log.with_columns(hour=pl.col("ms") // HOUR_MS, train=pl.col("ms") <= pl.col("ms").max() - VALID_DAYS * DAY_MS)
    train = log.filter("train")
    rate = float(train["click"].cast(pl.Float64).mean() or 0.0)
    words = {key: _words(train[key], least) for key, least in VOCABULARIES.items()}
    tags = _words(train["tags"].explode().drop_nulls(), 1)
    for key in ("user", "item"):
        log = log.join(_past_day(log, key), on=[key, "hour"], how="left")
    for key, known in words.items():
        log = log.with_columns(pl.col(key).replace_strict(known[key], known["row"], default=0).alias(f"{key}_row"))
    steps = range(10, 0, -1)
    log = log.with_columns([pl.col("item_row").shift(step).over("user").alias(f"before_{step}") for step in steps])
    place = pl.element().replace_strict(tags["tags"], tags["row"], default=0)
    log = log.with_columns(
        last=pl.concat_list([f"before_{step}" for step in steps]).list.drop_nulls(),
        tags=pl.col("tags").list.tail(5).list.eval(place),
        user__count_1d=pl.col("user_n").fill_null(0),
        item__count_1d=pl.col("item_n").fill_null(0),
        item__click_mean_1d=(pl.col("item_clicks").fill_null(0) + PRIOR * rate)
        / (pl.col("item_n").fill_null(0) + PRIOR),
    )
    train = log.filter("train")
    train = train.sample(min(len(train), SAMPLE_ROWS), seed=0)
    edges = {c: np.unique(np.quantile(train[c].to_numpy(), np.linspace(0, 1, n + 1))) for c, n in POSITIONS.items()}
    made = [
        pl.Series(c, np.interp(log[c].to_numpy(), e, np.arange(len(e))).astype(np.float32)) for c, e in edges.items()
    ]
    log = log.with_columns(*made, __user=pl.col("user").hash(), __item=pl.col("item").hash()).select(
        "train",
        *(pl.col(f"{key}_row").alias(key) for key in VOCABULARIES),
        *("price", "tags", "user__count_1d", "item__click_mean_1d", "item__count_1d", "last"),
        *("__user", "__item"),
        label__click=pl.col("click").cast(pl.Float32),
        weight__click=pl.lit(1.0, pl.Float32),
        __time="ms",
    )
    for name, part in (("train", log.filter("train")), ("valid", log.filter(~pl.col("train")))):
        part.drop("train").sample(fraction=1.0, shuffle=True, seed=0).write_parquet(
            target / f"{name}.parquet", compression="zstd", row_group_size=65_536
        )


def _words(values: pl.Series, least: int) -> pl.DataFrame:
    """The values that occur often enough and their rows from 1, the most frequent first."""
    counts = values.to_frame().group_by(values.name).len().filter(pl.col("len") >= least)
    ordered = counts.sort("len", values.name, descending=[True, False])
    return ordered.with_row_index("row", offset=1).with_columns(pl.col("row").cast(pl.Int32))


def _past_day(log: pl.DataFrame, key: str) -> pl.DataFrame:
    """By key and hour, the events and clicks of the 24 hours before."""
    tiles = log.group_by(key, "hour").agg(n=pl.len(), clicks=pl.col("click").sum().cast(pl.Int64)).sort(key, "hour")
    return tiles.rolling(index_column="hour", period="24i", offset="-24i", closed="left", group_by=key).agg(
        pl.col("n").sum().alias(f"{key}_n"), pl.col("clicks").sum().alias(f"{key}_clicks")
    )
