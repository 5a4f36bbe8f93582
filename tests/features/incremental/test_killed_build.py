"""A build that is killed at any moment leaves the last one whole, and the next one makes what it would have made."""

import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError, DataError
from contract.files import exclusive
from tests.features.incremental.test_increment import days, made, world
from tests.features.raw_world import raw_tables

KILLS = 3
FEW = {"histories": [], "crosses": [], "aggregates": [{"by": ["user"], "of": ["like"], "as_of": "hour"}]}


def test_builds_killed_at_random_moments_end_in_the_same_bytes(tmp_path: Path) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    world(grown, days(raw_tables(), 3), **FEW)
    world(whole, raw_tables(), **FEW)
    shutil.rmtree(whole / "features-days")
    began = time.monotonic()
    world(whole, raw_tables(), **FEW)
    took = time.monotonic() - began
    context = multiprocessing.get_context("fork")
    draw = np.random.default_rng()
    for _ in range(KILLS):
        process = context.Process(target=world, args=(grown, raw_tables()), kwargs=FEW)
        process.start()
        process.join(float(draw.uniform(0.3, 1.1)) * took)
        process.kill()
        process.join()
        assert (grown / "features" / "schema.json").is_file() or list(grown.glob(".tmp-features-*/old/schema.json"))
    world(grown, raw_tables(), **FEW)
    assert made(grown) == made(whole)
    assert {path.name for path in grown.iterdir() if path.name.startswith(".")} == set()


def test_a_build_killed_between_two_renames_gets_its_last_result_back(tmp_path: Path) -> None:
    world(tmp_path, raw_tables(), **FEW)
    (tmp_path / ".tmp-features-y").mkdir()
    (tmp_path / "features").rename(tmp_path / ".tmp-features-y" / "old")
    world(tmp_path, raw_tables(), **FEW, grow=True)
    assert (tmp_path / "features" / "schema.json").is_file()
    assert not list(tmp_path.glob(".tmp-*"))


def test_two_builds_in_one_place_are_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path / "features-days"), pytest.raises(ConfigError, match=r"is at work in .*features-days"):
        world(tmp_path, raw_tables(), **FEW)


def test_a_damaged_day_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    world(tmp_path, raw_tables(), **FEW)
    kept = next((tmp_path / "features-days").glob("2024-03-03-*.parquet"))
    columns = pq.read_metadata(kept).row_group(0)
    user = next(c for c in map(columns.column, range(columns.num_columns)) if c.path_in_schema == "user")
    data = bytearray(kept.read_bytes())
    data[user.data_page_offset + user.total_compressed_size // 2] ^= 1
    kept.write_bytes(data)
    with pytest.raises(DataError, match="features-days is damaged"):
        world(tmp_path, raw_tables(), **FEW)
    shutil.rmtree(tmp_path / "features-days")
    assert world(tmp_path, raw_tables(), **FEW).days_reused == 0
