"""The feature benchmark's job in polars, which is a rival alone: ``pip install 'moerank[rivals]'``."""

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.feature_rivals import POSITIONS, PRIOR, SAMPLE_ROWS, VOCABULARIES
from benchmarks.feature_world import DAY_MS, HOUR_MS, VALID_DAYS
from features.encode.fit_encoders import quantile_edges


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
    edges = {c: quantile_edges(train[c].to_numpy(), n) for c, n in POSITIONS.items()}
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
