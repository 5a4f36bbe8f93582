"""The feature benchmark's job as somebody would write it by hand, in plain DuckDB SQL; in polars: `feature_polars`.

Both give the columns that the build gives and stop there: no verified pages, no quality report, no online tables, no
schema. Bins follow the build's rule for edges, by its own function. A test compares their rows with the build's.
Histories take the rows before, so that among events of a user at the same moment one sees the other, which the build
does not allow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.feature_world import DAY_MS, HOUR_MS, VALID_DAYS
from features.encode.fit_encoders import quantile_edges

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
    sample = f"(SELECT * FROM joined WHERE train) USING SAMPLE reservoir({SAMPLE_ROWS} ROWS) REPEATABLE (0)"  # noqa: S608
    values = connection.execute(f"SELECT {', '.join(POSITIONS)} FROM {sample}").fetchnumpy()  # noqa: S608
    positions = {c: _position(c, quantile_edges(values[c], n)) for c, n in POSITIONS.items()}
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
